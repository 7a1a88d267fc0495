// Products of small matrices in scratch memory, and their transposes: see every_machine.h.

// Matrices are words: of one fp32 number, or of two of bf16, which are multiplied at a time.
#ifdef MJ_PAIRS
constexpr int64_t kPair = 2;  // numbers of a word

MJ_INLINE Floats everywhere(float word) { return (Floats)_mm512_set1_ps(word); }

MJ_INLINE Floats add_products(Floats a, Floats b, Floats sum) {
  return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
#else
constexpr int64_t kPair = 1;

MJ_INLINE Floats everywhere(float word) { return all(word); }

MJ_INLINE Floats add_products(Floats a, Floats b, Floats sum) { return fma(a, b, sum); }
#endif

constexpr int64_t kTall = 4;                      // rows of a tile that stays in registers
constexpr int64_t kWide = MJ_LANES == 16 ? 4 : 2;  // its vectors

// c[i,j] = factor sum_s a[i,s] b[s,j], or c + sum, of words a and b and fp32 c; the j of b and c lie
// together.
struct Product {
  const float* a;
  int64_t a_row, a_step;
  const float* b;
  int64_t b_step;
  float* c;
  int64_t c_row;
  int64_t rows, vectors, steps;  // rows: a multiple of kTall
  bool adds;
  float factor = 1.0f;  // of what does not add
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
        const Floats left = everywhere(a[r * p.a_row]);
#pragma GCC unroll 4
        for (int64_t v = 0; v < Vectors; ++v) {
          sums[r][v] = add_products(left, row[v], sums[r][v]);
        }
      }
    }
#pragma GCC unroll 4
    for (int64_t r = 0; r < kTall; ++r) {
#pragma GCC unroll 4
      for (int64_t v = 0; v < Vectors; ++v) {
        store(c + r * p.c_row + v * kLanes, p.adds ? sums[r][v] : sums[r][v] * p.factor);
      }
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
