// Products of small fp32 matrices in scratch memory, and how tensors get there and back: see
// every_machine.h. All rows are kQueries floats apart, or `width` = columns up to a whole kLine.

constexpr int64_t kTall = 4;                      // rows of a tile that stays in registers
constexpr int64_t kWide = MJ_LANES == 16 ? 4 : 2;  // its vectors

// c[i,j] (+)= sum_s a[i,s] b[s,j]; the j of b and c lie together.
struct Product {
  const float* a;
  int64_t a_row, a_step;
  const float* b;
  int64_t b_step;
  float* c;
  int64_t c_row;
  int64_t rows, vectors, steps;  // rows: a multiple of kTall
  bool adds;
};

template <int Vectors>
__attribute__((noinline)) void tiles(const Product& p, int64_t vector) {
  const float* const b = p.b + vector * kLanes;
  for (int64_t i = 0; i < p.rows; i += kTall) {
    float* const c = p.c + i * p.c_row + vector * kLanes;
    const float* a = p.a + i * p.a_row;
    const float* right = b;
    Floats sums[kTall][Vectors] = {};
    if (p.adds) {
#pragma GCC unroll 4
      for (int64_t r = 0; r < kTall; ++r) {
#pragma GCC unroll 4
        for (int64_t v = 0; v < Vectors; ++v) sums[r][v] = load(c + r * p.c_row + v * kLanes);
      }
    }
    for (int64_t s = 0; s < p.steps; ++s, a += p.a_step, right += p.b_step) {
      Floats row[Vectors];
#pragma GCC unroll 4
      for (int64_t v = 0; v < Vectors; ++v) row[v] = load(right + v * kLanes);
#pragma GCC unroll 4
      for (int64_t r = 0; r < kTall; ++r) {
        const Floats left = all(a[r * p.a_row]);
#pragma GCC unroll 4
        for (int64_t v = 0; v < Vectors; ++v) sums[r][v] = fma(left, row[v], sums[r][v]);
      }
    }
#pragma GCC unroll 4
    for (int64_t r = 0; r < kTall; ++r) {
#pragma GCC unroll 4
      for (int64_t v = 0; v < Vectors; ++v) store(c + r * p.c_row + v * kLanes, sums[r][v]);
    }
  }
}

void multiply(const Product& p) {
  int64_t vector = 0;
  for (; vector + kWide <= p.vectors; vector += kWide) tiles<kWide>(p, vector);
  if (kWide > 2 && vector + 2 <= p.vectors) {
    tiles<2>(p, vector);
    vector += 2;
  }
  if (vector < p.vectors) tiles<1>(p, vector);
}

// Lanes of two rows of blocks of `Size`: the second of `a` changes places with the first of `b`.
template <int Size>
MJ_INLINE void exchange(Floats& a, Floats& b) {
  Ints low, high;
  for (int lane = 0; lane < MJ_LANES; ++lane) {
    low[lane] = lane & Size ? MJ_LANES + lane - Size : lane;
    high[lane] = lane & Size ? MJ_LANES + lane : lane + Size;
  }
  const Floats first = __builtin_shuffle(a, b, low);
  b = __builtin_shuffle(a, b, high);
  a = first;
}

template <int Size>
MJ_INLINE void exchange_all(Floats (&rows)[MJ_LANES]) {
  if constexpr (Size < MJ_LANES) {
#pragma GCC unroll 16
    for (int i = 0; i < MJ_LANES; ++i) {
      if ((i & Size) == 0) exchange<Size>(rows[i], rows[i + Size]);
    }
    exchange_all<2 * Size>(rows);
  }
}

// to[j,i] = from[i,j]; rows and columns are whole vectors.
void transpose(const float* from, int64_t from_row, float* to, int64_t to_row, int64_t rows,
               int64_t columns) {
  for (int64_t i = 0; i < rows; i += kLanes) {
    for (int64_t j = 0; j < columns; j += kLanes) {
      Floats block[MJ_LANES];
#pragma GCC unroll 16
      for (int r = 0; r < MJ_LANES; ++r) block[r] = load(from + (i + r) * from_row + j);
      exchange_all<1>(block);
#pragma GCC unroll 16
      for (int r = 0; r < MJ_LANES; ++r) store(to + (j + r) * to_row + i, block[r]);
    }
  }
}

// Rows of a tensor: where the first number of each is, and how far apart they are.
struct Rows {
  const void* at;
  int64_t apart;
  int dtype;
};

// Numbers of `count` rows, times `factor`, to rows of `width`; zeros behind and below, to `padded`.
void take_rows(const Rows& from, int64_t count, int64_t columns, float factor, float* to,
               int64_t width, int64_t padded) {
  with_dtype(from.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t row = 0; row < count; ++row) {
      const T* const x = static_cast<const T*>(from.at) + row * from.apart;
      float* const y = to + row * width;
      each_vector(columns, MJ_EACH(int64_t i, auto lanes) { store(y + i, lanes.get(x + i) * factor); });
      for (int64_t i = (columns + kLanes - 1) / kLanes * kLanes; i < width; ++i) y[i] = 0;
    }
  });
  std::fill(to + count * width, to + padded * width, 0.0f);
}

// Rows of `width` to rows of a tensor, times `factor`.
void give_rows(const float* from, int64_t width, float factor, int64_t count, int64_t columns,
               void* to, int64_t apart, int dtype) {
  with_dtype(dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t row = 0; row < count; ++row) {
      const float* const x = from + row * width;
      T* const y = static_cast<T*>(to) + row * apart;
      each_vector(columns, MJ_EACH(int64_t i, auto lanes) { lanes.put(y + i, load(x + i) * factor); });
    }
  });
}

// 2^x within 2 units of the last place, for x below 128; 0 below -150.
MJ_INLINE Floats power_of_two(Floats x) {
  x = at_least(x, all(-160.0f));
  const Floats magic = all(0x1.8p23f);  // added, it leaves a whole number in the lowest bits
  const Floats shifted = x + magic;
  const Floats n = shifted - magic;
  const Floats r = x - n;
  Floats q = fma(r, all(0x1.44138ap-13f), all(0x1.5f089p-10f));
  q = fma(r, q, all(0x1.3b2a54p-7f));
  q = fma(r, q, all(0x1.c6af6cp-5f));
  q = fma(r, q, all(0x1.ebfbep-3f));
  q = fma(r, q, all(0x1.62e43p-1f));
  const Floats power = fma(r, q, all(1.0f));
#if MJ_LANES == 16
  return (Floats)_mm512_scalef_ps((__m512)power, (__m512)n);
#else
  const Ints whole = bits_of(shifted) - bits_of(magic);
  const Ints half = whole >> 1;  // two factors: one alone ends at 2^-126
  return power * floats_of((half + 127) << 23) * floats_of((whole - half + 127) << 23);
#endif
}
