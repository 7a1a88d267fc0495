#include "cuda/activation_formulas.h"
#include "cuda/experts.h"
#include "cuda/numbers.h"
#include "cuda/team.h"

namespace mj {

namespace {

constexpr int kWarps = 4;           // of a block, one a token
constexpr float kLeast = -3.0e38f;  // a NaN comes last, but is there

MJ_DEVICE float number_at(const void* tensor, int dtype, int64_t at) {
  if (dtype == kBf16) return widen(static_cast<const Bf16*>(tensor)[at]);
  if (dtype == kFp16) return widen(static_cast<const Fp16*>(tensor)[at]);
  return static_cast<const float*>(tensor)[at];
}

MJ_DEVICE void put_at(void* tensor, int dtype, int64_t at, float value) {
  if (dtype == kBf16) {
    static_cast<Bf16*>(tensor)[at] = narrow<Bf16>(value);
  } else if (dtype == kFp16) {
    static_cast<Fp16*>(tensor)[at] = narrow<Fp16>(value);
  } else {
    static_cast<float*>(tensor)[at] = value;
  }
}

// A token of one warp: lane l has the experts l, l + 32, ..., kSlots of them at most.
template <int kSlots>
struct Token {
  int lane;
  int64_t index;
  bool inside;
  float scores[kSlots];  // s of each expert; 0 where there is none

  MJ_DEVICE Token(const RouterRule& rule, const void* logits)
      : lane(static_cast<int>(threadIdx.x) % 32),
        index(int64_t{blockIdx.x} * kWarps + threadIdx.x / 32),
        inside(index < rule.tokens) {
    float most = -INFINITY, sum = 0.0f;
#pragma unroll
    for (int n = 0; n < kSlots; ++n) {
      scores[n] = -INFINITY;
      if (has(rule, n)) scores[n] = number_at(logits, rule.dtype, index * rule.experts + expert(n));
      most = Largest{}(scores[n], most);
    }
    if (rule.sigmoid) {
#pragma unroll
      for (int n = 0; n < kSlots; ++n) scores[n] = logistic(scores[n]);
      return;
    }
    most = over_team(most, 32, static_cast<float*>(nullptr), Largest{});
    if (most == -INFINITY) most = 0.0f;
#pragma unroll
    for (int n = 0; n < kSlots; ++n) {
      scores[n] = expf(scores[n] - most);
      sum += scores[n];
    }
    sum = over_team(sum, 32, static_cast<float*>(nullptr), Sum{});
#pragma unroll
    for (int n = 0; n < kSlots; ++n) scores[n] = scores[n] / sum;
  }

  MJ_DEVICE int expert(int slot) const { return slot * 32 + lane; }
  MJ_DEVICE bool has(const RouterRule& rule, int slot) const {
    return inside && expert(slot) < rule.experts;
  }
};

struct Candidate {
  float choice;
  int expert;
};

MJ_DEVICE Candidate better(Candidate a, Candidate b) {
  const bool first = a.choice > b.choice || (a.choice == b.choice && a.expert < b.expert);
  return first ? a : b;
}

MJ_DEVICE Candidate best_of_warp(Candidate own) {
  for (int step = 16; step > 0; step /= 2) {
    own = better(own, {from_lane_across(own.choice, step), from_lane_across(own.expert, step)});
  }
  return own;
}

// Take away the choices of all but the best groups, which lie in lanes as experts do. All threads of
// the block call it.
template <int kSlots>
MJ_DEVICE void keep_groups(const RouterRule& rule, const Token<kSlots>& token,
                           float (&choices)[kSlots]) {
  __shared__ float every[kWarps][kSlots * 32];
  __shared__ bool open[kWarps][kSlots * 32];
  float* const own = every[threadIdx.x / 32];
  bool* const kept = open[threadIdx.x / 32];
#pragma unroll
  for (int n = 0; n < kSlots; ++n) own[token.expert(n)] = choices[n];
  __syncthreads();
  const int size = static_cast<int>(rule.experts / rule.groups);
  float worth[kSlots];
#pragma unroll
  for (int n = 0; n < kSlots; ++n) {
    const int group = token.expert(n);
    worth[n] = -INFINITY;
    kept[group] = false;
    if (group >= rule.groups) continue;
    float first = -INFINITY, second = -INFINITY;
    for (int i = group * size; i < (group + 1) * size; ++i) {
      second = own[i] > first ? first : Largest{}(own[i], second);
      first = Largest{}(own[i], first);
    }
    worth[n] = Largest{}(rule.judges == 1 ? first : first + second, kLeast);
  }
  for (int k = 0; k < rule.groups_chosen; ++k) {
    Candidate best{-INFINITY, 1 << 30};
#pragma unroll
    for (int n = 0; n < kSlots; ++n) best = better(best, {worth[n], token.expert(n)});
    best = best_of_warp(best);
#pragma unroll
    for (int n = 0; n < kSlots; ++n) {
      if (token.expert(n) != best.expert) continue;
      worth[n] = -INFINITY;
      kept[best.expert] = true;
    }
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < kSlots; ++n) {
    if (token.has(rule, n) && !kept[token.expert(n) / size]) choices[n] = -INFINITY;
  }
}

// s_te = softmax over e of logit_te, or logistic(logit_te);  chosen_tk: the k-th largest
// s_te + bias_e, where kGrouped of the best groups;  weight_tk = scale s_t,chosen, or that over sum_k s_t,chosen + 1e-20
// t tokens, e experts, k visits. A warp has one token.
template <int kSlots, bool kGrouped>
__global__ void MJ_BOUNDS(kWarps * 32, 1) choose_experts(RouterForward task) {
  const RouterRule& rule = task.rule;
  const Token<kSlots> token(rule, task.logits);
  float choices[kSlots];
#pragma unroll
  for (int n = 0; n < kSlots; ++n) {
    choices[n] = -INFINITY;
    if (!token.has(rule, n)) continue;
    choices[n] = token.scores[n] + (task.bias == nullptr ? 0.0f : task.bias[token.expert(n)]);
    choices[n] = Largest{}(choices[n], kLeast);
  }
  if constexpr (kGrouped) keep_groups(rule, token, choices);
  int ranks[kSlots];
  float sum = 0.0f;
#pragma unroll
  for (int n = 0; n < kSlots; ++n) ranks[n] = -1;
  for (int k = 0; k < rule.visits; ++k) {
    Candidate best{-INFINITY, 1 << 30};
#pragma unroll
    for (int n = 0; n < kSlots; ++n) best = better(best, {choices[n], token.expert(n)});
    best = best_of_warp(best);
#pragma unroll
    for (int n = 0; n < kSlots; ++n) {
      if (token.expert(n) != best.expert || !token.inside) continue;
      choices[n] = -INFINITY;
      ranks[n] = k;
      sum += token.scores[n];
    }
  }
  sum = over_team(sum, 32, static_cast<float*>(nullptr), Sum{});
  const float scale = rule.normalized ? rule.scale / (sum + 1e-20f) : rule.scale;
#pragma unroll
  for (int n = 0; n < kSlots; ++n) {
    if (ranks[n] < 0) continue;
    const int64_t out = token.index * rule.visits + ranks[n];
    task.chosen[out] = token.expert(n);
    task.weights[out] = token.scores[n] * scale;
  }
}

// ds_tk = scale dweight_tk, or scale (dweight_tk - sum_j dweight_tj s_tj / S_t) / S_t where normalised,
// S_t = sum_k s_t,chosen_tk + 1e-20; 0 for experts not chosen
// dlogit_te = s_te (ds_te - sum_j ds_tj s_tj), or ds_te s_te (1 - s_te) of a sigmoid
// t tokens, e experts, k and j visits. A warp has one token.
template <int kSlots>
__global__ void MJ_BOUNDS(kWarps * 32, 1) router_gradients(RouterBackward task) {
  const RouterRule& rule = task.rule;
  const Token<kSlots> token(rule, task.logits);
  const int64_t in = token.index * rule.visits;
  float slopes[kSlots], sum = 0.0f, product = 0.0f;
#pragma unroll
  for (int n = 0; n < kSlots; ++n) {
    slopes[n] = 0.0f;
    for (int64_t k = 0; k < rule.visits && token.has(rule, n); ++k) {
      if (task.chosen[in + k] != token.expert(n)) continue;
      slopes[n] = task.dweights[in + k] * rule.scale;
      sum += token.scores[n];
      product += slopes[n] * token.scores[n];
    }
  }
  if (rule.normalized) {
    sum = over_team(sum, 32, static_cast<float*>(nullptr), Sum{}) + 1e-20f;
    product = over_team(product, 32, static_cast<float*>(nullptr), Sum{}) / sum;
    float inner = 0.0f;
#pragma unroll
    for (int n = 0; n < kSlots; ++n) {
      bool mine = false;
      for (int64_t k = 0; k < rule.visits && token.has(rule, n); ++k) {
        mine |= task.chosen[in + k] == token.expert(n);
      }
      slopes[n] = mine ? (slopes[n] - product) / sum : 0.0f;
      inner += slopes[n] * token.scores[n];
    }
    product = inner;
  }
  product = over_team(product, 32, static_cast<float*>(nullptr), Sum{});
#pragma unroll
  for (int n = 0; n < kSlots; ++n) {
    if (!token.has(rule, n)) continue;
    const float score = token.scores[n];
    const float inner = rule.sigmoid ? slopes[n] * (1.0f - score) : slopes[n] - product;
    put_at(task.dlogits, rule.dtype, token.index * rule.experts + token.expert(n), score * inner);
  }
}

void check(const RouterRule& rule) {
  MJ_CHECK(rule.experts >= 1 && rule.experts <= kMostExperts, "experts must be 1 to ", kMostExperts,
           ", got ", rule.experts);
  MJ_CHECK(rule.groups >= 1 && rule.experts % rule.groups == 0, "groups must divide ", rule.experts,
           " experts, got ", rule.groups);
  MJ_CHECK(rule.groups_chosen >= 1 && rule.groups_chosen <= rule.groups,
           "groups_chosen must be 1 to ", rule.groups, ", got ", rule.groups_chosen);
  const int64_t size = rule.experts / rule.groups, most = rule.groups_chosen * size;
  MJ_CHECK(rule.judges >= 1 && rule.judges <= (size < 2 ? size : 2),
           "judges must be 1, or 2 of groups of 2 and more, got ", rule.judges);
  MJ_CHECK(rule.visits >= 1 && rule.visits <= most, "visits must be 1 to ", most, ", got ",
           rule.visits);
  with_dtype(rule.dtype, [](auto*) {});
}

Grid grid_of(const RouterRule& rule) { return {(rule.tokens + kWarps - 1) / kWarps}; }

}  // namespace

void router_forward(const RouterForward& task, Stream stream) {
  check(task.rule);
  if (task.rule.tokens == 0) return;
  const bool few = task.rule.experts <= 128;
  auto kernel = few ? choose_experts<4, false> : choose_experts<16, false>;
  if (task.rule.groups > 1) kernel = few ? choose_experts<4, true> : choose_experts<16, true>;
  launch("router_forward", kernel, grid_of(task.rule), kWarps * 32, 0, stream, task);
}

void router_backward(const RouterBackward& task, Stream stream) {
  check(task.rule);
  if (task.rule.tokens == 0) return;
  const auto kernel = task.rule.experts <= 128 ? router_gradients<4> : router_gradients<16>;
  launch("router_backward", kernel, grid_of(task.rule), kWarps * 32, 0, stream, task);
}

}  // namespace mj
