// Templates of letters.h.
#pragma once

#include <bit>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace mj {

// The code point at `at`, which is moved behind it.
inline uint32_t next_code_point(const uint8_t*& at, const uint8_t* end) {
  const uint32_t first = *at++;
  if (first < 0x80) return first;
  const int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
  uint32_t value = first & (0x3fu >> more);
  for (int i = 0; i < more && at < end; ++i) value = (value << 6) | (*at++ & 0x3fu);
  return value;
}

// Bit i is set when byte i of 64 is no zero.
inline uint64_t letter_mask(const char* bytes) {
  uint64_t zeros = 0;
#if defined(__SSE2__)
  for (unsigned i = 0; i < 64; i += 16) {
    const auto some = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + i));
    const int found = _mm_movemask_epi8(_mm_cmpeq_epi8(some, _mm_setzero_si128()));
    zeros |= static_cast<uint64_t>(static_cast<uint32_t>(found)) << i;
  }
#else
  for (unsigned i = 0; i < 64; ++i) zeros |= static_cast<uint64_t>(bytes[i] == 0) << i;
#endif
  return ~zeros;
}

template <typename Work>
void each_word(const Folded& folded, const Work& work) {
  const char* const bytes = folded.bytes.data();
  uint64_t before = 0;  // whether the last byte was a letter
  size_t start = 0;
  for (size_t block = 0; block <= folded.size; block += 64) {  // a zero behind the end is seen too
    const uint64_t letters = letter_mask(bytes + block);
    uint64_t turns = letters ^ ((letters << 1) | before);
    uint64_t inside = before;
    for (; turns; turns &= turns - 1) {
      const size_t at = block + static_cast<size_t>(std::countr_zero(turns));
      if (inside) {
        work(bytes + start, bytes + at);
      } else {
        start = at;
      }
      inside ^= 1;
    }
    before = letters >> 63;
  }
}

template <typename Work>
void each_letter(const Folded& folded, const Work& work) {
  const auto* at = reinterpret_cast<const uint8_t*>(folded.bytes.data());
  const auto* const end = at + folded.size;
  while (at < end) {
    const uint32_t letter = next_code_point(at, end);
    if (letter) work(letter);
  }
}

}  // namespace mj
