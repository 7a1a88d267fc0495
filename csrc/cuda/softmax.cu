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

// Which keys a row sees: those before `end`, but for the forbidden ones.
template <int V>
struct Seen {
  int end;
  const Flags<V>* forbidden;

  MJ_DEVICE Seen(const SoftmaxRule& rule, int64_t row) : end(static_cast<int>(rule.keys)), forbidden(nullptr) {
    const int64_t query = row % rule.queries;
    if (rule.causal) {
      const int64_t later = rule.keys - rule.queries + query + 1;
      end = static_cast<int>(later < 0 ? 0 : later);
    }
    if (rule.forbidden == nullptr) return;
    const int64_t sequence = row / (rule.heads * rule.queries);
    const uint8_t* first =
        rule.forbidden + sequence * rule.forbidden_stride + query * rule.keys;
    forbidden = reinterpret_cast<const Flags<V>*>(first);
  }

  // The scores of a pack, scaled; -infinity where they are not seen.
  template <typename T>
  MJ_DEVICE void scores(const Pack<T, V>& pack, int at, float scale, float (&out)[V]) const {
    Flags<V> hidden{};
    if (forbidden != nullptr) hidden = forbidden[at];
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const bool seen = at * V + i < end && hidden.at[i] == 0;
      out[i] = seen ? pack[i] * scale : -INFINITY;
    }
  }
};

// s_rk = scale x_rk where r sees k, -infinity elsewhere
// y_rk = exp(s_rk - max_j s_rj) / sum_j exp(s_rj - max_j s_rj); 0 where r sees nothing
// r rows (sequence, head, query), k and j keys. A team of threads has one row; fixed order of sums.
template <typename T, int V>
__global__ void MJ_BOUNDS(kMostTeam) softmax_rows(SoftmaxForward task, int team) {
  __shared__ float scratch[32];
  const SoftmaxRule& rule = task.rule;
  const int lane = static_cast<int>(threadIdx.x) % team;
  const int64_t row = int64_t{blockIdx.x} * (blockDim.x / team) + threadIdx.x / team;
  const bool inside = row < rule.sequences * rule.heads * rule.queries;
  const int width = static_cast<int>(rule.keys / V);
  const int packs = inside ? width : 0;
  const Seen<V> seen(rule, inside ? row : 0);
  const Pack<T, V>* x = row_of<T, V>(task.x, row, width);
  Pack<T, V>* y = row_of<T, V>(task.y, row, width);
  float held[kHeld][V], other[V];
  float most = -INFINITY;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team >= packs) continue;
    seen.scores(x[lane + k * team], lane + k * team, rule.scale, held[k]);
#pragma unroll
    for (int i = 0; i < V; ++i) most = Largest{}(held[k][i], most);
  }
  for (int at = lane + kHeld * team; at < packs; at += team) {
    seen.scores(x[at], at, rule.scale, other);
#pragma unroll
    for (int i = 0; i < V; ++i) most = Largest{}(other[i], most);
  }
  most = over_team(most, team, scratch, Largest{});
  if (most == -INFINITY) most = 0.0f;  // the powers are then 0, not NaN
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
  for (int at = lane + kHeld * team; at < packs; at += team) {
    seen.scores(x[at], at, rule.scale, other);
#pragma unroll
    for (int i = 0; i < V; ++i) sum += expf(other[i] - most);
  }
  sum = over_team(sum, team, scratch, Sum{});
  const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
  Pack<T, V> out;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team >= packs) continue;
#pragma unroll
    for (int i = 0; i < V; ++i) out.set(i, held[k][i] * inverse);
    y[lane + k * team] = out;
  }
  for (int at = lane + kHeld * team; at < packs; at += team) {
    seen.scores(x[at], at, rule.scale, other);
#pragma unroll
    for (int i = 0; i < V; ++i) out.set(i, expf(other[i] - most) * inverse);
    y[at] = out;
  }
}

// dx_rk = scale y_rk (dy_rk - sum_j dy_rj y_rj);  r rows, k and j keys. A team has one row.
template <typename T, int V>
__global__ void MJ_BOUNDS(kMostTeam) softmax_gradients(SoftmaxBackward task, int team) {
  __shared__ float scratch[32];
  const SoftmaxRule& rule = task.rule;
  const int lane = static_cast<int>(threadIdx.x) % team;
  const int64_t row = int64_t{blockIdx.x} * (blockDim.x / team) + threadIdx.x / team;
  const bool inside = row < rule.sequences * rule.heads * rule.queries;
  const int width = static_cast<int>(rule.keys / V);
  const int packs = inside ? width : 0;
  const Pack<T, V>* y = row_of<T, V>(task.y, row, width);
  const Pack<T, V>* dy = row_of<T, V>(task.dy, row, width);
  Pack<T, V>* dx = row_of<T, V>(task.dx, row, width);
  Pack<T, V> held_y[kHeld], held_dy[kHeld];
  float product = 0.0f;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team >= packs) continue;
    held_y[k] = y[lane + k * team];
    held_dy[k] = dy[lane + k * team];
  }
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team >= packs) continue;
#pragma unroll
    for (int i = 0; i < V; ++i) product += held_dy[k][i] * held_y[k][i];
  }
  for (int at = lane + kHeld * team; at < packs; at += team) {
    const Pack<T, V> value = y[at], slope = dy[at];
#pragma unroll
    for (int i = 0; i < V; ++i) product += slope[i] * value[i];
  }
  product = over_team(product, team, scratch, Sum{});
  const auto gradient = [&](const Pack<T, V>& value, const Pack<T, V>& slope) {
    Pack<T, V> out;
#pragma unroll
    for (int i = 0; i < V; ++i) out.set(i, rule.scale * value[i] * (slope[i] - product));
    return out;
  };
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team < packs) dx[lane + k * team] = gradient(held_y[k], held_dy[k]);
  }
  for (int at = lane + kHeld * team; at < packs; at += team) dx[at] = gradient(y[at], dy[at]);
}

int64_t rows_of(const SoftmaxRule& rule) { return rule.sequences * rule.heads * rule.queries; }

}  // namespace

void softmax_forward(const SoftmaxForward& task, Stream stream) {
  const SoftmaxRule& rule = task.rule;
  if (rows_of(rule) == 0 || rule.keys == 0) return;
  const auto run = [&]<typename N>(N) {
    const Teams teams = teams_for(rows_of(rule), rule.keys / N::V, kHeld, 128);
    launch("softmax_forward", softmax_rows<typename N::T, N::V>, {teams.blocks}, teams.threads, 0,
           stream, task, teams.team);
  };
  with_numbers(rule.dtype, rule.keys, run, task.x, task.y, rule.forbidden);
}

void softmax_backward(const SoftmaxBackward& task, Stream stream) {
  const SoftmaxRule& rule = task.rule;
  if (rows_of(rule) == 0 || rule.keys == 0) return;
  const auto run = [&]<typename N>(N) {
    const Teams teams = teams_for(rows_of(rule), rule.keys / N::V, kHeld, 128);
    launch("softmax_backward", softmax_gradients<typename N::T, N::V>, {teams.blocks},
           teams.threads, 0, stream, task, teams.team);
  };
  with_numbers(rule.dtype, rule.keys, run, task.dy, task.y, task.dx);
}

}  // namespace mj
