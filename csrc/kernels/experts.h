// Mixtures of experts. T tokens, E experts, K that a token visits, P = T K places in the order of
// experts, C chunks of places that lie one after the other, H columns.
#pragma once

#include <cstdint>
#include <vector>

namespace mj {

// s = softmax(logits) or logistic(logits) over the experts; a choice is s + bias, a NaN the least of
// all. A group of E / groups experts is as good as the sum of its `judges` best choices; chosen are
// the K best of the best `groups_chosen` groups, the first of equals.
// weight = scale s, or scale s / (sum of the chosen s + 1e-20) where normalized.
struct RouterRule {
  int64_t tokens, experts, visits;
  int64_t groups, groups_chosen, judges;
  int dtype;  // of logits
  bool sigmoid, normalized;
  float scale;
  int threads;
};

struct RouterForward {
  RouterRule rule;
  const void* logits;  // T [T, E]
  const float* bias;   // [E], or null
  float* weights;      // [T, K]
  int64_t* chosen;     // [T, K], the best first
};

struct RouterBackward {
  RouterRule rule;
  const void* logits;     // T [T, E]
  const float* dweights;  // [T, K]
  const int64_t* chosen;  // [T, K]
  void* dlogits;          // T [T, E]
};

void router_forward(const RouterForward& task);
void router_backward(const RouterBackward& task);

// Visits in the order of experts, those of one expert in the order of tokens.
struct Deal {
  int64_t tokens, experts, visits;
  const uint8_t* goes;  // [T, E], 0 or 1
  int64_t* source;      // [P], the token of a place
  int64_t* places;      // [T, K], in the order of experts
  int64_t* chosen;      // [T, K], ascending
};

// Raises invalid_argument where a token does not visit K experts.
void deal_visits(const Deal& task);

// Rows of places, of several tensors one after the other: some experts' each.
struct Chunks {
  std::vector<void*> tensors;  // T [rows, H] each
  std::vector<int64_t> rows;
};

struct RowsRule {
  int64_t tokens, visits, columns;
  int dtype;
  int threads;
};

// chunks_p = x_source_p.
struct BringRows {
  RowsRule rule;
  const void* x;          // T [T, H]
  const int64_t* source;  // [P], all below T
  Chunks to;
};

// y_t = sum_k weight_tk x_place_tk, in the order of k, in fp32.
struct CollectRows {
  RowsRule rule;
  Chunks from;
  const int64_t* places;  // [T, K], all below P
  const float* weights;   // [T, K], or null: 1
  void* y;                // T [T, H]
};

// dx_place_tk = weight_tk dy_t; dweight_tk = sum_h dy_th x_place_tk,h.
struct CollectBackward {
  RowsRule rule;
  const void* dy;         // T [T, H]
  Chunks from;            // x; asked for with dweights alone
  const int64_t* places;  // [T, K], each place once
  const float* weights;   // [T, K], or null: 1
  Chunks to;              // dx
  float* dweights;        // [T, K], or null
};

void bring_rows(const BringRows& task);
void collect_rows(const CollectRows& task);
void collect_rows_backward(const CollectBackward& task);

}  // namespace mj
