#include "lines/scan.h"

#include <bit>
#include <cstdint>
#include <cstring>

#include "check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mj {
namespace {

constexpr uint64_t kOnes = 0x0101010101010101ull;
constexpr uint64_t kHighs = 0x8080808080808080ull;

bool is_plain(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

const char* scan_bytes(const char* at, const char* end) {
  while (at < end && is_plain(*at)) ++at;
  return at;
}

// Whether one of eight bytes is not plain; may be true when none is, never the other way round.
bool may_hold_one(uint64_t word) {
  const auto below = [](uint64_t w, uint64_t n) { return (w - kOnes * n) & ~w; };
  const uint64_t quote = word ^ (kOnes * '"');
  const uint64_t slash = word ^ (kOnes * '\\');
  return (word | below(word, 0x20) | below(quote, 1) | below(slash, 1)) & kHighs;
}

const char* scan_plain(const char* at, const char* end) {
  while (end - at >= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    if (may_hold_one(word)) {
      const char* found = scan_bytes(at, at + 8);
      if (found < at + 8) return found;
    }
    at += 8;
  }
  return scan_bytes(at, end);
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) const char* scan_avx2(const char* at, const char* end) {
  const __m256i quote = _mm256_set1_epi8('"');
  const __m256i slash = _mm256_set1_epi8('\\');
  const __m256i space = _mm256_set1_epi8(0x20);
  while (end - at >= 32) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    // as signed numbers, bytes over 0x7f are below a space too
    const __m256i odd = _mm256_or_si256(
        _mm256_cmpgt_epi8(space, bytes),
        _mm256_or_si256(_mm256_cmpeq_epi8(bytes, quote), _mm256_cmpeq_epi8(bytes, slash)));
    const auto mask = static_cast<uint32_t>(_mm256_movemask_epi8(odd));
    if (mask != 0) return at + std::countr_zero(mask);
    at += 32;
  }
  return scan_plain(at, end);
}

__attribute__((target("avx512bw,avx512f"))) const char* scan_avx512(const char* at,
                                                                    const char* end) {
  const __m512i quote = _mm512_set1_epi8('"');
  const __m512i slash = _mm512_set1_epi8('\\');
  const __m512i space = _mm512_set1_epi8(0x20);
  while (end - at >= 64) {
    const __m512i bytes = _mm512_loadu_si512(at);
    const uint64_t mask = _mm512_cmplt_epi8_mask(bytes, space) |
                          _mm512_cmpeq_epi8_mask(bytes, quote) |
                          _mm512_cmpeq_epi8_mask(bytes, slash);
    if (mask != 0) return at + std::countr_zero(mask);
    at += 64;
  }
  return scan_plain(at, end);
}

bool machine_has(Width width) {
  if (width == Width::avx2) return __builtin_cpu_supports("avx2");
  if (width == Width::avx512) {
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512f");
  }
  return true;
}

Scan wide_scan(Width width) { return width == Width::avx2 ? scan_avx2 : scan_avx512; }

#else

bool machine_has(Width width) { return width == Width::plain; }

Scan wide_scan(Width) { return scan_plain; }

#endif

}  // namespace

Width fastest_width() {
  for (const Width width : {Width::avx512, Width::avx2}) {
    if (machine_has(width)) return width;
  }
  return Width::plain;
}

Scan scan_of(Width width) {
  MJ_CHECK(machine_has(width), "this machine cannot scan that wide; take another width");
  return width == Width::plain ? scan_plain : wide_scan(width);
}

}  // namespace mj
