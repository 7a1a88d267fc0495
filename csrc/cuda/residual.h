// The residual stream. R rows, H columns.
#pragma once

#include <cstdint>

#include "cuda/tile.h"

namespace mj {

// Which numbers of a tensor are dropped, by their places in it: 16 random bits each, so that one
// draw does for eight neighbours. Those kept are scaled so that the mean stays, by the share that
// is really kept of 65536.
struct Dropout {
  uint32_t kept = 65536;  // of 65536
  float scale = 1.0f;
};

constexpr int kOfDraw = 8;

inline Dropout dropout_of(double share) {
  MJ_CHECK(share >= 0 && share < 1, "dropout must be at least 0 and below 1, got ", share);
  const auto kept = static_cast<uint32_t>((1.0 - share) * 65536.0 + 0.5);
  return {kept > 0 ? kept : 1, 65536.0f / static_cast<float>(kept > 0 ? kept : 1)};
}

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
