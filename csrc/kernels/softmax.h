// Softmax of scores. B sequences, N heads, Q queries, K keys.
#pragma once

#include <array>
#include <cstdint>

namespace mj {

// w[q,k] = exp(s[q,k] - max) / sum over the keys that q may see, 0 for the others, where
// s = scale x, or cap tanh(scale x / cap). NaN for a query that may see nothing.
struct SoftmaxRule {
  std::array<int64_t, 4> shape;    // B, N, Q, K
  std::array<int64_t, 3> strides;  // of `allowed`, from a sequence, head and query to the next
  const uint8_t* allowed;          // which keys a query may see; or null: all
  bool causal;                     // query q sees keys up to q + K - Q
  float scale;
  float cap;  // 0: none
  int dtype;
  int threads;
};

// x, w: T [B, N, Q, K].
void softmax_forward(const SoftmaxRule& rule, const void* x, void* w);

// dx[k] = w[k] (dw[k] - sum_j w[j] dw[j]) ds/dx. All T [B, N, Q, K].
void softmax_backward(const SoftmaxRule& rule, const void* dw, const void* x, const void* w,
                      void* dx);

}  // namespace mj
