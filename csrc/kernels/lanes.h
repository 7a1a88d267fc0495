// Vectors of MJ_LANES floats: +, -, *, /, comparisons and ?: are the compiler's, the rest is here.
// Included by every_machine.h, once a machine; 16 for AVX-512, 8 for AVX2, 4 for every other.
// What is computed may differ between machines in the last bit (fused multiply-add), never
// between calls or numbers of threads.

#define MJ_INLINE [[maybe_unused]] __attribute__((always_inline)) inline

constexpr int64_t kLanes = MJ_LANES;
typedef float Floats __attribute__((vector_size(4 * MJ_LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * MJ_LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * MJ_LANES)));

MJ_INLINE Floats all(float value) { return value - Floats{}; }
MJ_INLINE Ints bits_of(Floats value) { return reinterpret_cast<Ints>(value); }
MJ_INLINE Floats floats_of(Ints bits) { return reinterpret_cast<Floats>(bits); }

// a * b + c, rounded once where the machine can.
MJ_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if MJ_LANES == 16
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif MJ_LANES == 8
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// A NaN in `value` stays one.
MJ_INLINE Floats at_most(Floats value, Floats bound) { return value > bound ? bound : value; }
MJ_INLINE Floats at_least(Floats value, Floats bound) { return value < bound ? bound : value; }

// Sums of a whole vector, in a fixed order: halves added until one is left.
MJ_INLINE float sum_of(Floats value) {
  float part[MJ_LANES];
  std::memcpy(part, &value, sizeof(part));
  for (int width = MJ_LANES / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) part[lane] += part[lane + width];
  }
  return part[0];
}

MJ_INLINE float largest_of(Floats value) {
  float part[MJ_LANES];
  std::memcpy(part, &value, sizeof(part));
  for (int width = MJ_LANES / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) {
      part[lane] = part[lane] > part[lane + width] ? part[lane] : part[lane + width];
    }
  }
  return part[0];
}

MJ_INLINE Floats load(const float* from) {
  Floats value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

// One instruction each, of which GCC 12 makes five of __builtin_convertvector, or two and a constant.
MJ_INLINE Ints widened(Halves bits) {
#if MJ_LANES == 16
  return (Ints)_mm512_cvtepu16_epi32((__m256i)bits);
#elif MJ_LANES == 8
  return (Ints)_mm256_cvtepu16_epi32((__m128i)bits);
#else
  return __builtin_convertvector(bits, Ints);
#endif
}

MJ_INLINE Halves narrowed(Ints bits) {
#if MJ_LANES == 16
  return (Halves)_mm512_cvtepi32_epi16((__m512i)bits);
#else
  return __builtin_convertvector(bits, Halves);
#endif
}

MJ_INLINE Floats load(const Bf16* from) {
  Halves bits;
  std::memcpy(&bits, from, sizeof(bits));
  return floats_of(widened(bits) << 16);
}

MJ_INLINE Floats load(const Fp16* from) {
#if MJ_LANES == 16
  return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif MJ_LANES == 8
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  Floats value;
  for (int lane = 0; lane < MJ_LANES; ++lane) value[lane] = to_float(from[lane]);
  return value;
#endif
}

MJ_INLINE void store(float* to, Floats value) { std::memcpy(to, &value, sizeof(value)); }

// To nearest, ties to even.
MJ_INLINE Halves bf16_of(Floats value) {
  const Ints bits = bits_of(value);
  const Ints up = bits + 0x7fff + (bits >> 16 & 1);
  const Ints kept = value == value ? up >> 16 : bits >> 16 | 0x40;
  return narrowed(kept);
}

MJ_INLINE void store(Bf16* to, Floats value) {
  const Halves bits = bf16_of(value);
  std::memcpy(to, &bits, sizeof(bits));
}

MJ_INLINE void store(Fp16* to, Floats value) {
#if MJ_LANES == 16
  const auto bits = _mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bits);
#elif MJ_LANES == 8
  const auto bits = _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bits);
#else
  for (int lane = 0; lane < MJ_LANES; ++lane) to[lane] = from_float<Fp16>(value[lane]);
#endif
}

// The first `count` lanes, below MJ_LANES; the others are 0, or not written.
template <typename T>
MJ_INLINE Floats load_part(const T* from, int64_t count) {
  T part[MJ_LANES] = {};
  std::memcpy(part, from, static_cast<size_t>(count) * sizeof(T));
  return load(part);
}

template <typename T>
MJ_INLINE void store_part(T* to, Floats value, int64_t count) {
  T part[MJ_LANES];
  store(part, value);
  std::memcpy(to, part, static_cast<size_t>(count) * sizeof(T));
}

// The same in one instruction, where there is one.
#if MJ_LANES == 16
MJ_INLINE __mmask16 first_lanes(int64_t count) { return static_cast<__mmask16>((1u << count) - 1); }

MJ_INLINE Floats load_part(const float* from, int64_t count) {
  return (Floats)_mm512_maskz_loadu_ps(first_lanes(count), from);
}

MJ_INLINE Floats load_part(const Bf16* from, int64_t count) {
  return floats_of(widened((Halves)_mm256_maskz_loadu_epi16(first_lanes(count), from)) << 16);
}

MJ_INLINE Floats load_part(const Fp16* from, int64_t count) {
  return (Floats)_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(count), from));
}

MJ_INLINE void store_part(float* to, Floats value, int64_t count) {
  _mm512_mask_storeu_ps(to, first_lanes(count), (__m512)value);
}

MJ_INLINE void store_part(Bf16* to, Floats value, int64_t count) {
  _mm256_mask_storeu_epi16(to, first_lanes(count), (__m256i)bf16_of(value));
}
#elif MJ_LANES == 8
MJ_INLINE __m256i first_lanes(int64_t count) {
  Ints lanes;
  for (int lane = 0; lane < MJ_LANES; ++lane) lanes[lane] = lane;
  return (__m256i)(lanes < static_cast<int32_t>(count));
}

MJ_INLINE Floats load_part(const float* from, int64_t count) {
  return (Floats)_mm256_maskload_ps(from, first_lanes(count));
}

MJ_INLINE void store_part(float* to, Floats value, int64_t count) {
  _mm256_maskstore_ps(to, first_lanes(count), (__m256)value);
}
#endif

// Past the caches: for what is too large to be found there again. `to` is aligned to a vector of T;
// call `drained` before another thread may read it.
MJ_INLINE void stream(float* to, Floats value) {
#if MJ_LANES == 16
  _mm512_stream_ps(to, (__m512)value);
#elif MJ_LANES == 8
  _mm256_stream_ps(to, (__m256)value);
#else
  store(to, value);
#endif
}

template <typename T>
MJ_INLINE void stream(T* to, Floats value) {
  T part[MJ_LANES];
  store(part, value);
#if MJ_LANES == 16
  __m256i bits;
  std::memcpy(&bits, part, sizeof(bits));
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), bits);
#elif MJ_LANES == 8
  __m128i bits;
  std::memcpy(&bits, part, sizeof(bits));
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), bits);
#else
  std::memcpy(to, part, sizeof(part));
#endif
}

// Begin to fetch what is soon read once: not into the last cache, from which all else would be pushed.
MJ_INLINE void ahead(const void* from) { __builtin_prefetch(from, 0, 0); }

// How many numbers ahead, where rows are read once.
constexpr int64_t kAhead = 1024;

MJ_INLINE void drained() {
#if MJ_LANES > 4
  _mm_sfence();
#endif
}

// e^x within 2 units of the last place; 0 below -104, infinity above 88.73, NaN of a NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2: 2^n (1 + r + r^2 q(r)), q interpolated at Chebyshev's points,
// which leaves a relative error of 1.1e-8.
MJ_INLINE Floats exp(Floats x) {
  x = at_least(at_most(x, all(89.0f)), all(-105.0f));
  const Floats magic = all(0x1.8p23f);  // added, it leaves a whole number in the lowest bits
  const Floats shifted = fma(x, all(0x1.715476p0f), magic);
  const Floats n = shifted - magic;
  Floats r = fma(n, all(-0x1.62e4p-1f), x);  // ln 2 in two parts: n times the first is exact
  r = fma(n, all(-0x1.7f7d1cp-20f), r);
  Floats q = fma(r, all(0x1.6d4328p-10f), all(0x1.120b74p-7f));
  q = fma(r, q, all(0x1.5554eap-5f));
  q = fma(r, q, all(0x1.5554dcp-3f));
  q = fma(r, q, all(0.5f));
  const Floats power = fma(q, r * r, r + 1.0f);
#if MJ_LANES == 16
  return (Floats)_mm512_scalef_ps((__m512)power, (__m512)n);
#else
  const Ints whole = bits_of(shifted) - bits_of(magic);
  const Ints half = whole >> 1;  // two factors: one alone ends at 2^127 and 2^-126
  return power * floats_of((half + 127) << 23) * floats_of((whole - half + 127) << 23);
#endif
}

// All lanes of a vector, or, at the end of a row, its first `count`.
struct Whole {
  template <typename T>
  MJ_INLINE Floats get(const T* from) const {
    return load(from);
  }
  template <typename T>
  MJ_INLINE void put(T* to, Floats value) const {
    store(to, value);
  }
  MJ_INLINE Floats keep(Floats value) const { return value; }
};

struct Part {
  int64_t count;

  template <typename T>
  MJ_INLINE Floats get(const T* from) const {
    return load_part(from, count);
  }
  template <typename T>
  MJ_INLINE void put(T* to, Floats value) const {
    store_part(to, value, count);
  }
  // 0 in the lanes that are not there
  MJ_INLINE Floats keep(Floats value) const {
    for (int64_t lane = 0; lane < kLanes; ++lane) value[lane] = lane < count ? value[lane] : 0;
    return value;
  }
};

#define MJ_EACH(...) [&](__VA_ARGS__) __attribute__((always_inline))

// work(i, lanes) for the vectors that start at i of [0, columns); `lanes` is a Whole or a Part.
template <typename Work>
MJ_INLINE void each_vector(int64_t columns, const Work& work) {
  int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes) work(i, Whole{});
  if (i < columns) work(i, Part{columns - i});
}

// `Sums` sums over [0, columns): add(i, lanes, sums) adds the vector at i to Floats sums[Sums].
// Four at a time: none waits for the one before.
template <int Sums, typename Add>
MJ_INLINE void add_up(int64_t columns, float (&found)[Sums], const Add& add) {
  Floats sums[4][Sums] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= columns; i += 4 * kLanes) {
    add(i, Whole{}, sums[0]);
    add(i + kLanes, Whole{}, sums[1]);
    add(i + 2 * kLanes, Whole{}, sums[2]);
    add(i + 3 * kLanes, Whole{}, sums[3]);
  }
  for (; i + kLanes <= columns; i += kLanes) add(i, Whole{}, sums[0]);
  if (i < columns) add(i, Part{columns - i}, sums[1]);
  for (int n = 0; n < Sums; ++n) {
    found[n] = sum_of((sums[0][n] + sums[1][n]) + (sums[2][n] + sums[3][n]));
  }
}

// A store, past the caches if `past`, which `streams` found.
template <typename T>
MJ_INLINE void put(bool past, Whole lanes, T* to, Floats value) {
  if (past) {
    stream(to, value);
  } else {
    lanes.put(to, value);
  }
}

template <typename T>
MJ_INLINE void put(bool, Part lanes, T* to, Floats value) {
  lanes.put(to, value);
}

// Whether rows of T that start at `to` are worth a stream, and aligned for it.
template <typename T>
MJ_INLINE bool streams(const T* to, int64_t rows, int64_t columns) {
  const bool large = rows * columns * static_cast<int64_t>(sizeof(T)) >= kStreamed;
  return MJ_LANES > 4 && large && columns % kLanes == 0 && reinterpret_cast<uintptr_t>(to) % 64 == 0;
}
