// Softmax of scaled, masked scores. B sequences, N heads, Q queries, K keys.
#pragma once

#include <cstdint>

#include "cuda/device.h"

namespace mj {

struct SoftmaxRule {
  int64_t sequences, heads, queries, keys;
  int dtype;
  float scale;  // of the scores
  bool causal;  // a query sees no key that is later: the last query the last key
  const uint8_t* forbidden;   // bool [B or 1, 1, Q, K]: True forbids; or null
  int64_t forbidden_stride;   // numbers from one sequence to the next: Q K, or 0
};

struct SoftmaxForward {
  SoftmaxRule rule;
  const void* x;  // T [B, N, Q, K]
  void* y;        // T [B, N, Q, K]; may be x. 0 in all of a row that sees no key
};

struct SoftmaxBackward {
  SoftmaxRule rule;  // its mask is not asked for: y is 0 there
  const void* dy;    // T [B, N, Q, K]
  const void* y;     // T [B, N, Q, K]
  void* dx;          // T [B, N, Q, K]; may be dy
};

void softmax_forward(const SoftmaxForward& task, Stream stream);
void softmax_backward(const SoftmaxBackward& task, Stream stream);

}  // namespace mj
