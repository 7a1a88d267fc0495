// RMSNorm and LayerNorm of rows. R rows, H columns; T is fp32, bf16 or fp16.
#pragma once

#include <cstdint>

namespace mj {

// x' = x - mean (LayerNorm; else x); y = x' / sqrt(mean(x'^2) + eps) * (weight + offset) + bias
struct NormRule {
  int64_t rows, columns;
  int dtype;      // of all tensors but mean and scale
  float eps;      // added to the mean of squares
  bool offset;    // 1 is added to the weight
  bool centred;   // LayerNorm
  int threads;
};

struct NormForward {
  NormRule rule;
  const void* x;         // T [R, H]
  const void* residual;  // T [R, H]: x + residual is normalised; or null
  const void* weight;    // T [H]
  const void* bias;      // T [H], or null
  void* y;               // T [R, H]
  void* sum;             // T [R, H]: x + residual; null without
  float* mean;           // [R]; null unless centred
  float* scale;          // [R]: 1 / sqrt(...)
};

struct NormBackward {
  NormRule rule;
  const void* dy;      // T [R, H]
  const void* x;       // T [R, H]: what was normalised
  const void* weight;  // T [H]
  const float* mean;   // [R]; null unless centred
  const float* scale;  // [R]
  const void* dsum;    // T [R, H]: gradient of `sum`, which is added to dx; or null
  void* dx;            // T [R, H]
  void* dweight;       // T [H]
  void* dbias;         // T [H], or null
};

void norm_forward(const NormForward& task);

// Sums of dweight and dbias: over blocks of rows that depend on R alone, then over the blocks in order.
void norm_backward(const NormBackward& task);

}  // namespace mj
