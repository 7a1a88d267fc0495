// RMSNorm and LayerNorm of rows. R rows, H columns; T is fp32, bf16 or fp16.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/team.h"

namespace mj {

struct NormRule {
  int64_t rows, columns;
  int dtype;     // of all tensors but mean and scale
  float eps;     // added to the mean of squares
  bool offset;   // 1 is added to the weight
  bool centred;  // LayerNorm
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
  float* scale;          // [R]: 1 / sqrt(mean of squares + eps)
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
  void* dbias;         // T [H]; null unless centred
  float* partial;      // scratch, of norm_scratch numbers
};

// Blocks of the backward, whose partial sums of dweight are added in order: two on each of the
// 132 multiprocessors of an H100 or H200. By shape alone, so that sums are the same on any GPU.
constexpr int64_t kNormBlocks = 264;

// Of the partial sums of dweight, and of dbias for LayerNorm.
constexpr int64_t norm_scratch(int64_t columns, bool centred) {
  return kNormBlocks * columns * (centred ? 2 : 1);
}

void norm_forward(const NormForward& task, Stream stream);
void norm_backward(const NormBackward& task, Stream stream);

}  // namespace mj
