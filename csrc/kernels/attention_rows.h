// Rows of tensors to scratch memory and back: see every_machine.h. There they are fp32, or words that
// products take, and `width` numbers apart, which is the columns up to whole lines of words.
//
// A word of two numbers has those of two columns (`along` a row) or of two rows (`down` a column).

// Addresses in scratch memory, one after the other, each at a cache line.
struct Room {
  float* next;

  float* take(int64_t floats) {
    float* const here = next;
    next += (floats + kLine - 1) / kLine * kLine;
    return here;
  }
};

// Rows of a tensor: where the first number of each is, and how far apart they are.
struct Rows {
  const void* at;
  int64_t apart;
  int dtype;
};

Rows rows_of(const void* at, const std::array<int64_t, 3>& strides, int64_t position,
             int64_t sequence, int64_t head, int dtype) {
  const int64_t numbers = position * strides[0] + sequence * strides[1] + head * strides[2];
  return {static_cast<const char*>(at) + numbers * size_of(dtype), strides[0], dtype};
}

// Strides of a contiguous tensor [positions, B, heads, D].
std::array<int64_t, 3> strides_of(const Attention& task, int64_t heads) {
  return {task.sequences * heads * task.columns, heads * task.columns, task.columns};
}

// Begin to fetch a row that is read after its next ones.
template <typename T>
MJ_INLINE void fetch(const T* row, int64_t columns) {
  const auto* const bytes = reinterpret_cast<const char*>(row);
  for (size_t i = 0; i < static_cast<size_t>(columns) * sizeof(T); i += 64) {
    __builtin_prefetch(bytes + i);
  }
}

// Numbers of `count` rows to rows of `width`; zeros behind and below, to `padded`.
void take_rows(const Rows& from, int64_t count, int64_t columns, float* to, int64_t width,
               int64_t padded) {
  with_dtype(from.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t row = 0; row < count; ++row) {
      const T* const x = static_cast<const T*>(from.at) + row * from.apart;
      float* const y = to + row * width;
      fetch(x + kAhead * from.apart, columns);
      each_vector(columns, MJ_EACH(int64_t i, auto lanes) { store(y + i, lanes.get(x + i)); });
      for (int64_t i = (columns + kLanes - 1) / kLanes * kLanes; i < width; ++i) y[i] = 0;
    }
  });
  std::fill(to + count * width, to + padded * width, 0.0f);
}

#ifdef MJ_PAIRS
// The same as words along rows.
void take_along(const Rows& from, int64_t count, int64_t columns, float* to, int64_t width,
                int64_t padded) {
  const int64_t words = width / kPair;
  for (int64_t row = 0; row < count; ++row) {
    const Bf16* const x = static_cast<const Bf16*>(from.at) + row * from.apart;
    fetch(x + kAhead * from.apart, columns);
    std::memcpy(to + row * words, x, static_cast<size_t>(columns) * sizeof(Bf16));
    std::fill(to + row * words + columns / kPair, to + (row + 1) * words, 0.0f);
  }
  std::fill(to + count * words, to + padded * words, 0.0f);
}

// Two vectors of fp32 as bf16, one behind the other.
MJ_INLINE __m512i as_bf16(Floats first, Floats second) {
  return (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
}

// Numbers of two rows in turn, of 32 numbers: those of the first half of `words`, and of its second.
MJ_INLINE __m512i in_turn(__m512i words) {
  Ints order;
  for (int lane = 0; lane < MJ_LANES; ++lane) order[lane] = lane | (lane + MJ_LANES) << 16;
  return _mm512_permutexvar_epi16((__m512i)order, words);
}

// `rows` of words along, an even number, as words down.
void turn_down(const float* along, int64_t rows, int64_t width, float* down) {
  const int64_t words = width / kPair;
  for (int64_t row = 0; row < rows; row += 2, along += 2 * words) {
    for (int64_t i = 0; i < words; i += kLanes / 2, down += kLanes) {
      const auto first = _mm256_castps_si256(_mm256_loadu_ps(along + i));
      const auto second = _mm256_castps_si256(_mm256_loadu_ps(along + words + i));
      const auto both = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
      _mm512_storeu_si512(down, in_turn(both));
    }
  }
}
#else
void take_along(const Rows& from, int64_t count, int64_t columns, float* to, int64_t width,
                int64_t padded) {
  take_rows(from, count, columns, to, width, padded);
}

void turn_down(const float*, int64_t, int64_t, float*) {}  // they are the same
#endif

// Rows of `width` to rows of a tensor, times `factor`.
void give_rows(const float* from, int64_t width, float factor, int64_t count, int64_t columns,
               const Rows& to) {
  with_dtype(to.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t row = 0; row < count; ++row) {
      const float* const x = from + row * width;
      T* const y = static_cast<T*>(const_cast<void*>(to.at)) + row * to.apart;
      each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
        lanes.put(y + i, load(x + i) * factor);
      });
    }
  });
}
