// Mixtures of experts. T tokens, E experts, K that a token visits, P places in the order of experts,
// H columns.
#pragma once

#include <cstdint>

#include "cuda/device.h"

namespace mj {

constexpr int64_t kMostExperts = 512;

// s = softmax(logits) or logistic(logits) over the experts; those chosen have the largest s + bias, the
// first of equals, of the best groups: equal ones of neighbouring experts, as good as the largest
// s + bias in them, or the two largest together. weight = scale s, or scale s / (sum of the chosen s + 1e-20) where normalised.
struct RouterRule {
  int64_t tokens, experts, visits;
  int dtype;  // of logits
  bool sigmoid, normalized;
  float scale;
  int64_t groups = 1, groups_chosen = 1;  // those a token may visit
  int64_t judges = 1;                     // 1 or 2 experts say how good a group is
};

struct RouterForward {
  RouterRule rule;
  const void* logits;  // T [T, E]
  const float* bias;   // [E], or null
  float* weights;      // [T, K]
  int64_t* chosen;     // [T, K], the largest first
};

struct RouterBackward {
  RouterRule rule;
  const void* logits;     // T [T, E]
  const float* dweights;  // [T, K]
  const int64_t* chosen;  // [T, K]
  void* dlogits;          // T [T, E]
};

void router_forward(const RouterForward& task, Stream stream);
void router_backward(const RouterBackward& task, Stream stream);

// out_p = x_source_p, rows of H columns; zeros where source_p is -1.
struct GatherRows {
  int64_t rows, columns;  // of out
  int dtype;
  const void* x;          // T [any, H]
  const int64_t* source;  // [P]
  void* out;              // T [P, H]
};

void gather_rows(const GatherRows& task, Stream stream);

// y_t = sum_k weight_tk x_place_tk, in the order of k; a place of -1 counts nothing.
struct CombineRule {
  int64_t tokens, visits, columns;
  int dtype;
};

struct CombineForward {
  CombineRule rule;
  const void* x;          // T [P, H]
  const int64_t* places;  // [T, K]
  const float* weights;   // [T, K], or null: 1
  void* y;                // T [T, H]
};

// dx_place_tk = weight_tk dy_t; dweight_tk = sum_h dy_th x_place_tk,h. Places that no token has are
// not written to.
struct CombineBackward {
  CombineRule rule;
  const void* dy;         // T [T, H]
  const void* x;          // T [P, H]; asked for with dweights alone
  const int64_t* places;  // [T, K]
  const float* weights;   // [T, K], or null: 1
  void* dx;               // T [P, H]
  float* dweights;        // [T, K], or null
};

void combine_forward(const CombineForward& task, Stream stream);
void combine_backward(const CombineBackward& task, Stream stream);

}  // namespace mj
