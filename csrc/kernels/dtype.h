// The numbers that kernels read and write; they compute in fp32.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "check.h"

namespace mj {

struct Bf16 {
  uint16_t bits;
};
struct Fp16 {
  uint16_t bits;
};

// Codes of dtypes, as Python gives them.
constexpr int kFp32 = 0, kBf16 = 1, kFp16 = 2;

inline float to_float(float value) { return value; }
inline float to_float(Bf16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

inline float to_float(Fp16 value) {
  const uint32_t sign = uint32_t{value.bits} >> 15 << 31;
  const uint32_t rest = value.bits & 0x7fffu;
  if (rest >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  // a subnormal one is a normal fp32 number: let the multiplication find its exponent
  const float size = std::bit_cast<float>(rest << 13) * 0x1p112f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(size) | sign);
}

template <typename T>
T from_float(float value);

template <>
inline float from_float<float>(float value) {
  return value;
}

// To nearest, ties to even; a NaN stays one.
template <>
inline Bf16 from_float<Bf16>(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

template <>
inline Fp16 from_float<Fp16>(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t size = bits & 0x7fffffffu;
  uint32_t found = 0;
  if (size > 0x7f800000u) {
    found = 0x7e00u | (size >> 13 & 0x3ffu);
  } else if (size >= 0x477ff000u) {
    found = 0x7c00u;  // 65520 and more round to infinity
  } else if (size < 0x38800000u) {
    // below 2^-14: an addition rounds to multiples of 2^-24
    const float rounded = std::bit_cast<float>(size) + 0.5f;
    found = std::bit_cast<uint32_t>(rounded) - std::bit_cast<uint32_t>(0.5f);
  } else {
    found = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(found | sign)};
}

// Outputs of so many bytes are written past the caches: they would push out all else, and be gone
// before they are read.
constexpr int64_t kStreamed = int64_t{8} << 20;

// What `work` gives for a null pointer of the type that `code` means.
template <typename Work>
decltype(auto) with_dtype(int code, const Work& work) {
  MJ_CHECK(code >= kFp32 && code <= kFp16, "dtype must be 0 (fp32), 1 (bf16) or 2 (fp16), got ",
           code);
  if (code == kFp32) return work(static_cast<float*>(nullptr));
  if (code == kBf16) return work(static_cast<Bf16*>(nullptr));
  return work(static_cast<Fp16*>(nullptr));
}

}  // namespace mj
