// AdamW over lists of tensors, and what is asked of their gradients.
#pragma once

#include <cstdint>
#include <span>

#include "cuda/device.h"

namespace mj {

// One step of all parameters, the step-th, with g = factor * gradient:
//
//   first += (1 - beta1) (g - first);  second += (1 - beta2) (g^2 - second)
//   parameter = (1 - lr decay) parameter
//               - lr / (1 - beta1^step) first / (sqrt(second / (1 - beta2^step)) + eps)
//
// Loshchilov and Hutter 2019, algorithm 2, arXiv:1711.05101.
struct AdamRule {
  double lr, beta1, beta2, eps, decay;
  double step;    // from 1
  double factor;  // of the gradients: what clips them
};

using Addresses = std::span<void* const>;

struct AdamStep {
  AdamRule rule;
  std::span<const int64_t> sizes;
  Addresses parameters, gradients, first, second;  // fp32 but for gradients
  Addresses rounded;      // copies of the parameters that the model reads; or empty
  int dtype;              // of gradients
  int rounded_dtype;
  const float* factor;    // [1], on the device: a further factor of the gradients; or null
  const float* stop;      // [1], on the device: nothing is done unless it is 0; or null
};

void adam_step(const AdamStep& task, Stream stream);

struct TensorList {
  std::span<const int64_t> sizes;
  Addresses tensors;
  int dtype;
};

// Numbers that sum_of_squares needs as scratch: one a chunk.
int64_t squares_scratch(std::span<const int64_t> sizes);

// sum [1], on the device, in fp64: the squares of a chunk are added in fp32, the chunks in fp64, both in
// an order that depends on the sizes alone.
void sum_of_squares(const TensorList& list, float* scratch, double* sum, Stream stream);

// Multiply in place by `factor`, and by factor_at [1] on the device unless that is null; bad [1], on
// the device, becomes 1 if any number was infinite or NaN before, and is left otherwise; or null.
void scale_all(const TensorList& list, float factor, const float* factor_at, float* bad,
               Stream stream);

// bad [1], on the device, becomes 1 if any number is infinite or NaN, and is left otherwise.
void find_bad(const TensorList& list, float* bad, Stream stream);

}  // namespace mj
