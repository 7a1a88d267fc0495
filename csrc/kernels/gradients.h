// A gradient added to the fp32 sum of a batch.
#pragma once

#include <cstdint>

namespace mj {

struct GradientRule {
  int64_t numbers;
  int dtype;   // of the gradient
  bool first;  // sum = gradient, whatever the sum was before
  int threads;
};

// sum += gradient, rounded once. Addresses may be unaligned.
void add_gradient(const GradientRule& rule, const void* gradient, float* sum);

}  // namespace mj
