// AdamW over lists of tensors, and what is asked of their gradients. Addresses may be unaligned.
#pragma once

#include <cstdint>
#include <span>

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

struct AdamStep {
  AdamRule rule;
  std::span<const int64_t> sizes;
  std::span<float* const> parameters, first, second;
  std::span<const void* const> gradients;
  int dtype;                         // of gradients
  std::span<void* const> rounded;    // copies of the parameters that the model reads; or empty
  int rounded_dtype;                 // theirs
  int threads;
};

void adam_step(const AdamStep& task);

struct TensorList {
  std::span<const int64_t> sizes;
  std::span<void* const> tensors;
  int dtype;
  int threads;
};

// The sum of squares of all numbers: in fp32 for kSummed numbers, whose sums are added in fp64; all in
// fp64 where fp32 knows no such squares.
constexpr int64_t kSummed = 4096;
double sum_of_squares(const TensorList& list);

// Multiply all numbers in place; whether all that were there are finite.
bool scale_all(const TensorList& list, float factor);

bool all_finite(const TensorList& list);

}  // namespace mj
