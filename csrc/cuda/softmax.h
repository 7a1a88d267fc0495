// Softmax of scores. B sequences, N heads, Q queries, K keys.
#pragma once

#include <cstdint>

#include "cuda/device.h"

namespace mj {

// w[q,k] = exp(s[q,k] - max) / sum over the keys that q may see, 0 for the others, where
// s = scale x, or cap tanh(scale x / cap). NaN for a query that may see nothing.
struct SoftmaxRule {
  int64_t shape[4];        // B, N, Q, K
  int64_t strides[3];      // of `allowed`, from a sequence, head and query to the next
  const uint8_t* allowed;  // which keys a query may see; or null: all
  bool causal;             // query q sees keys up to q + K - Q
  float scale;
  float cap;  // 0: none
  int dtype;

  constexpr int64_t rows() const { return shape[0] * shape[1] * shape[2]; }
};

struct SoftmaxForward {
  SoftmaxRule rule;
  const void* x;  // T [B, N, Q, K]
  void* w;        // T [B, N, Q, K]
};

// dx[k] = w[k] (dw[k] - sum_j w[j] dw[j]) ds/dx; 0 for a query that may see nothing. All T
// [B, N, Q, K].
struct SoftmaxBackward {
  SoftmaxRule rule;  // its mask is not asked for: w is 0 there
  const void* dw;
  const void* x;  // read with a cap, and where weights are NaN
  const void* w;
  void* dx;
};

void softmax_forward(const SoftmaxForward& task, Stream stream);
void softmax_backward(const SoftmaxBackward& task, Stream stream);

}  // namespace mj
