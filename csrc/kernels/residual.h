// The residual stream. R rows, H columns.
#pragma once

#include <cstdint>

namespace mj {

struct ResidualRule {
  int64_t rows, columns;
  int dtype;
  int threads;
};

// y = (x + bias) + residual, rounded once.
struct ResidualForward {
  ResidualRule rule;
  const void* x;         // T [R, H]
  const void* bias;      // T [H]
  const void* residual;  // T [R, H]
  void* y;               // T [R, H]
};

void add_residual(const ResidualForward& task);

// dbias[h] = sum over r of dy[r, h]: over blocks of rows that depend on R alone, then over the
// blocks in order. dy is the gradient of x and of residual as well.
void bias_gradient(const ResidualRule& rule, const void* dy, void* dbias);

}  // namespace mj
