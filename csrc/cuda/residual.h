// The residual stream. R rows, H columns.
#pragma once

#include <cstdint>

#include "cuda/philox.h"
#include "cuda/tile.h"

namespace mj {

struct ResidualRule {
  int64_t rows, columns;
  int dtype;
  Dropout dropout;
  const int64_t* seed;  // [1], on the device; null without dropout
};

// y = factor (x + bias) + residual, rounded once; factor is 0 where dropped, and above 1 elsewhere.
struct ResidualForward {
  ResidualRule rule;
  const void* x;         // T [R, H]
  const void* bias;      // T [H], or null
  const void* residual;  // T [R, H]
  void* y;               // T [R, H]
};

// dx = factor dy, by the same seed; dbias = sum_r dx. The gradient of residual is dy.
struct ResidualBackward {
  ResidualRule rule;
  const void* dy;  // T [R, H]
  void* dx;        // T [R, H]; null without dropout: it is dy
  void* dbias;     // T [H], or null
  float* partial;  // scratch, of tile_scratch(H) numbers; null without dbias
};

void residual_forward(const ResidualForward& task, Stream stream);
void residual_backward(const ResidualBackward& task, Stream stream);

}  // namespace mj
