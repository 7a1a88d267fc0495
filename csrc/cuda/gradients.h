// Weight gradients added where those of a batch are kept, by the cuBLAS that torch has loaded.
#pragma once

#include <cstdint>
#include <string>

#include "cuda/device.h"

namespace mj {

// sum_oi += sum_t dy_to x_ti, or = where it is the first of a batch: what apex's fused_weight_gradient_mlp_cuda does for megatron-core. T rows
// (tokens), O and I columns.
struct AddProduct {
  int64_t rows, outputs, inputs;
  int dtype;      // of dy and x
  int sum_dtype;  // fp32, or that of dy
  const void* dy;  // [T, O]
  const void* x;   // [T, I]
  void* sum;       // [O, I]
  bool first;      // whatever sum holds is not read
};

// Take cuBLAS from a shared library. Raises runtime_error where it cannot be opened or lacks a function.
void use_cublas(const std::string& path);

// Raises runtime_error before use_cublas, and with cuBLAS's status when it refuses.
void add_product(const AddProduct& task, Stream stream);

}  // namespace mj
