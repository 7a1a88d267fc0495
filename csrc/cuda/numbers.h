// Numbers of tensors as fp32, in packs of 16 bytes: what one thread reads or writes at a time.
#pragma once

#include "cuda/device.h"
#include "kernels/dtype.h"
#if !defined(MJ_EMULATED)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace mj {

MJ_BOTH float widen(float value) { return value; }

MJ_BOTH float widen(Bf16 value) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(uint32_t{value.bits} << 16);
#else
  return to_float(value);
#endif
}

MJ_BOTH float widen(Fp16 value) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(value.bits));
#else
  return to_float(value);
#endif
}

// To the nearest number of T, ties to even.
template <typename T>
MJ_BOTH T narrow(float value);

template <>
MJ_BOTH float narrow<float>(float value) {
  return value;
}

template <>
MJ_BOTH Bf16 narrow<Bf16>(float value) {
#ifdef __CUDA_ARCH__
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
  return from_float<Bf16>(value);
#endif
}

template <>
MJ_BOTH Fp16 narrow<Fp16>(float value) {
#ifdef __CUDA_ARCH__
  return {__half_as_ushort(__float2half_rn(value))};
#else
  return from_float<Fp16>(value);
#endif
}

// How many numbers of T are 16 bytes.
template <typename T>
constexpr int kPack = 16 / sizeof(T);

// V neighbours, read or written in one access: kPack<T> of them, or one where rows are not so even.
template <typename T, int V>
struct alignas(V * sizeof(T)) Pack {
  T at[V];

  MJ_BOTH float operator[](int i) const { return widen(at[i]); }
  MJ_BOTH void set(int i, float value) { at[i] = narrow<T>(value); }
};

// Row `index` of a contiguous tensor [rows, packs of V].
template <typename T, int V>
MJ_BOTH const Pack<T, V>* row_of(const void* tensor, int64_t index, int packs) {
  return static_cast<const Pack<T, V>*>(tensor) + index * packs;
}

template <typename T, int V>
MJ_BOTH Pack<T, V>* row_of(void* tensor, int64_t index, int packs) {
  return static_cast<Pack<T, V>*>(tensor) + index * packs;
}

template <typename T_, int V_>
struct Numbers {
  using T = T_;
  static constexpr int V = V_;
};

// What `work` does with Numbers<T, V>: packs where `columns`, the length of rows of tensors that
// begin at `tensors` (or null), allow it.
template <typename Work, typename... Tensors>
void with_numbers(int dtype, int64_t columns, const Work& work, const Tensors*... tensors) {
  MJ_CHECK(columns < int64_t{1} << 31, "columns must be below 2^31, got ", columns);
  with_dtype(dtype, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const uintptr_t bits = (reinterpret_cast<uintptr_t>(tensors) | ...);
    if (bits % 16 == 0 && columns % kPack<T> == 0) {
      work(Numbers<T, kPack<T>>{});
    } else {
      work(Numbers<T, 1>{});
    }
  });
}

}  // namespace mj
