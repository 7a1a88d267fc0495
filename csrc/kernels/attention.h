// Causal attention without its matrix of scores. Q queries, which are the last of K keys, of B
// sequences; N query heads in turn share G key heads (N / G each); D columns.
#pragma once

#include <array>
#include <cstdint>

namespace mj {

struct Attention {
  int64_t queries, keys, sequences, heads, groups, columns;
  std::array<int64_t, 3> q_strides, k_strides, v_strides;  // of a position, sequence and head
  const int32_t* first;  // [B, Q]: the first key that a query sees; or null: the very first
  float scale;           // of the scores
  int dtype;
  int threads;
};

// s[q,k] = scale sum_d Q[q,d] K[k,d] for first[q] <= k <= q + K - Q, p = exp(s - max) / sum,
// out[q] = sum_k p[q,k] V[k], 0 for a query that sees nothing. sums[q] = log2 sum_k e^s[q,k].
// q: T [Q, B, N, D]. k, v: T [K, B, G, D], all by strides. out: T [Q, B, N, D]. sums: [B, N, Q].
void attention_forward(const Attention& task, const void* q, const void* k, const void* v,
                       void* out, float* sums);

struct AttentionInputs {
  const void *q, *k, *v;  // as above
  const void *out, *dout;
  const float* sums;
};

// With p from `sums`, and dp = dout V': dv = p' dout, ds = p (dp - sum_d dout out),
// dq = scale ds K, dk = scale ds' Q; dk and dv summed over the query heads of a key head.
// All are contiguous.
void attention_backward(const Attention& task, const AttentionInputs& from, void* dq, void* dk,
                        void* dv);

}  // namespace mj
