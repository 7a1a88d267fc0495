#include "cuda/softmax.h"

#include "cuda/numbers.h"
#include "cuda/team.h"

namespace mj {

namespace {

constexpr int kHeld = 4;  // packs of a row that a thread holds

template <int V>
struct alignas(V) Flags {
  uint8_t at[V];
};

MJ_DEVICE float score_of(const SoftmaxRule& rule, float x) {
  const float scaled = rule.scale * x;
  return rule.cap > 0.0f ? rule.cap * tanhf(scaled / rule.cap) : scaled;
}

// ds/dx
MJ_DEVICE float slope_of(const SoftmaxRule& rule, float x) {
  if (!(rule.cap > 0.0f)) return rule.scale;
  const float bent = tanhf(rule.scale * x / rule.cap);
  return rule.scale * (1.0f - bent * bent);
}

// Keys before which a row sees all that its mask allows: of causal rows those up to its own place.
MJ_DEVICE int reach(const SoftmaxRule& rule, int64_t row) {
  if (!rule.causal) return static_cast<int>(rule.shape[3]);
  const int64_t later = rule.shape[3] - rule.shape[2] + row % rule.shape[2] + 1;
  return static_cast<int>(later < 0 ? 0 : later);
}

// Which keys a row sees: those before `end` that are allowed.
template <int V>
struct Seen {
  int end;
  const Flags<V>* allowed;

  MJ_DEVICE Seen(const SoftmaxRule& rule, int64_t row) : end(reach(rule, row)), allowed(nullptr) {
    if (rule.allowed == nullptr) return;
    const int64_t query = row % rule.shape[2], head = row / rule.shape[2];
    const uint8_t* first = rule.allowed + head / rule.shape[1] * rule.strides[0] +
                           head % rule.shape[1] * rule.strides[1] + query * rule.strides[2];
    allowed = reinterpret_cast<const Flags<V>*>(first);
  }

  // The scores of a pack; -infinity where they are not seen.
  template <typename T>
  MJ_DEVICE void scores(const SoftmaxRule& rule, const Pack<T, V>& pack, int at,
                        float (&out)[V]) const {
    Flags<V> open{};
    if (allowed != nullptr) open = allowed[at];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const bool seen = at * V + i < end && (allowed == nullptr || open.at[i] != 0);
      out[i] = seen ? score_of(rule, pack[i]) : -INFINITY;
    }
  }
};

// How many packs have a key before `end`: what comes after them is not read.
template <int V>
MJ_DEVICE int packs_before(int end) {
  return (end + V - 1) / V;
}

// s_rk = scale x_rk or cap tanh(scale x_rk / cap) where r sees k, -infinity elsewhere
// w_rk = exp(s_rk - max_j s_rj) / sum_j exp(s_rj - max_j s_rj)
// r rows (sequence, head, query), k and j keys. A team of threads has one row; fixed order of sums.
template <typename T, int V>
__global__ void MJ_BOUNDS(kMostTeam, 1) softmax_rows(SoftmaxForward task, int team) {
  __shared__ float scratch[32];
  const SoftmaxRule& rule = task.rule;
  const int lane = static_cast<int>(threadIdx.x) % team;
  const int64_t row = int64_t{blockIdx.x} * (blockDim.x / team) + threadIdx.x / team;
  const bool inside = row < rule.rows();
  const int width = static_cast<int>(rule.shape[3] / V);
  const int packs = inside ? width : 0;
  const Seen<V> seen(rule, inside ? row : 0);
  const int open = inside ? packs_before<V>(seen.end) : 0;
  const Pack<T, V>* x = row_of<T, V>(task.x, row, width);
  Pack<T, V>* w = row_of<T, V>(task.w, row, width);
  Pack<T, V> ahead[kHeld] = {};
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team < open) ahead[k] = x[lane + k * team];
  }
  float held[kHeld][V], other[V];
  float most = -INFINITY;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team >= packs) continue;
    seen.scores(rule, ahead[k], lane + k * team, held[k]);
#pragma unroll
    for (int i = 0; i < V; ++i) most = Largest{}(held[k][i], most);
  }
  for (int at = lane + kHeld * team; at < open; at += team) {
    seen.scores(rule, x[at], at, other);
#pragma unroll
    for (int i = 0; i < V; ++i) most = Largest{}(other[i], most);
  }
  most = over_team(most, team, scratch, Largest{});
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team >= packs) continue;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      held[k][i] = expf(held[k][i] - most);
      sum += held[k][i];
    }
  }
  for (int at = lane + kHeld * team; at < open; at += team) {
    seen.scores(rule, x[at], at, other);
#pragma unroll
    for (int i = 0; i < V; ++i) sum += expf(other[i] - most);
  }
  const float inverse = 1.0f / over_team(sum, team, scratch, Sum{});
  Pack<T, V> out;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team >= packs) continue;
#pragma unroll
    for (int i = 0; i < V; ++i) out.set(i, held[k][i] * inverse);
    w[lane + k * team] = out;
  }
  for (int at = lane + kHeld * team; at < packs; at += team) {
    Pack<T, V> pack{};
    if (at < open) pack = x[at];
    seen.scores(rule, pack, at, other);
#pragma unroll
    for (int i = 0; i < V; ++i) out.set(i, expf(other[i] - most) * inverse);
    w[at] = out;
  }
}

// Whether the mask let none be seen, where the weights of a row are NaN: no score is to blame. All
// lanes of a warp call it, those of a team for one row.
template <typename T, int V>
MJ_DEVICE bool saw_nothing(const SoftmaxRule& rule, const Pack<T, V>* x, int packs, int team) {
  const int lanes = team < 32 ? team : 32;
  float odd = 0.0f;
  for (int at = static_cast<int>(threadIdx.x) % lanes; at < packs; at += lanes) {
    const Pack<T, V> score = x[at];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float scaled = rule.scale * score[i];
      if (scaled - scaled != 0.0f) odd = 1.0f;  // infinite or NaN
    }
  }
  return over_team(odd, lanes, static_cast<float*>(nullptr), Largest{}) == 0.0f;
}

// dx_rk = w_rk (dw_rk - sum_j dw_rj w_rj) ds/dx for the keys k and j up to a causal row's own place,
// 0 after them; 0 for a row that sees nothing, whose weights are NaN;  r rows. A team has one row.
template <typename T, int V>
__global__ void MJ_BOUNDS(kMostTeam, 1) softmax_gradients(SoftmaxBackward task, int team) {
  __shared__ float scratch[32];
  const SoftmaxRule& rule = task.rule;
  const int lane = static_cast<int>(threadIdx.x) % team;
  const int64_t row = int64_t{blockIdx.x} * (blockDim.x / team) + threadIdx.x / team;
  const bool inside = row < rule.rows();
  const int width = static_cast<int>(rule.shape[3] / V);
  const int packs = inside ? width : 0, end = inside ? reach(rule, row) : 0;
  const int open = packs_before<V>(end);
  const Pack<T, V>* x = row_of<T, V>(task.x, row, width);
  const Pack<T, V>* w = row_of<T, V>(task.w, row, width);
  const Pack<T, V>* dw = row_of<T, V>(task.dw, row, width);
  Pack<T, V>* dx = row_of<T, V>(task.dx, row, width);
  Pack<T, V> held_w[kHeld] = {}, held_dw[kHeld] = {};
  float product = 0.0f;
  const auto add = [&](int at, const Pack<T, V>& value, const Pack<T, V>& slope) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (at * V + i < end) product += slope[i] * value[i];
    }
  };
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team >= open) continue;
    held_w[k] = w[lane + k * team];
    held_dw[k] = dw[lane + k * team];
  }
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team < open) add(lane + k * team, held_w[k], held_dw[k]);
  }
  for (int at = lane + kHeld * team; at < open; at += team) add(at, w[at], dw[at]);
  product = over_team(product, team, scratch, Sum{});
  bool blind = product != product;
  if (any_of_warp(blind)) {  // all of its lanes go on together: they add up
    blind = blind && w[0][0] != w[0][0];
    blind = saw_nothing(rule, x, packs, team) && blind;
  }
  const auto put = [&](int at, const Pack<T, V>& value, const Pack<T, V>& slope) {
    Pack<T, V> score{}, out;
    if (rule.cap > 0.0f && at < open) score = x[at];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float found = value[i] * (slope[i] - product) * slope_of(rule, score[i]);
      out.set(i, blind || at * V + i >= end ? 0.0f : found);
    }
    dx[at] = out;
  };
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team < packs) put(lane + k * team, held_w[k], held_dw[k]);
  }
  for (int at = lane + kHeld * team; at < packs; at += team) {
    Pack<T, V> value{}, slope{};
    if (at < open) {
      value = w[at];
      slope = dw[at];
    }
    put(at, value, slope);
  }
}

// The largest power of two that divides the number of keys and the strides of the mask.
int64_t common(const SoftmaxRule& rule) {
  int64_t all = rule.shape[3];
  for (const int64_t stride : rule.strides) all |= rule.allowed == nullptr ? 0 : stride;
  return all & -all;
}

}  // namespace

void softmax_forward(const SoftmaxForward& task, Stream stream) {
  const SoftmaxRule& rule = task.rule;
  if (rule.rows() == 0 || rule.shape[3] == 0) return;
  const auto run = [&]<typename N>(N) {
    const Teams teams = teams_for(rule.rows(), rule.shape[3] / N::V, kHeld, 128);
    launch("softmax_forward", softmax_rows<typename N::T, N::V>, {teams.blocks}, teams.threads, 0,
           stream, task, teams.team);
  };
  with_numbers(rule.dtype, common(rule), run, task.x, task.w, rule.allowed);
}

void softmax_backward(const SoftmaxBackward& task, Stream stream) {
  const SoftmaxRule& rule = task.rule;
  if (rule.rows() == 0 || rule.shape[3] == 0) return;
  const auto run = [&]<typename N>(N) {
    const Teams teams = teams_for(rule.rows(), rule.shape[3] / N::V, kHeld, 128);
    launch("softmax_backward", softmax_gradients<typename N::T, N::V>, {teams.blocks},
           teams.threads, 0, stream, task, teams.team);
  };
  with_numbers(rule.dtype, rule.shape[3], run, task.dw, task.x, task.w, task.dx);
}

}  // namespace mj
