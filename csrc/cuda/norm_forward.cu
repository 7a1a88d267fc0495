#include "cuda/norm.h"
#include "cuda/numbers.h"

namespace mj {

namespace {

constexpr int kHeld = 4;

// Calls work(index, pack) for each pack of a row that this thread has; the first kHeld are `held`.
template <typename T, int V, typename Work>
MJ_DEVICE void each_pack(const Pack<T, V> (&held)[kHeld], const Pack<T, V>* row, int packs,
                         int team, const Work& work) {
  const int lane = static_cast<int>(threadIdx.x) % team;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team < packs) work(lane + k * team, held[k]);
  }
  for (int at = lane + kHeld * team; at < packs; at += team) work(at, row[at]);
}

template <typename T, int V>
MJ_DEVICE Pack<T, V> added(Pack<T, V> a, const Pack<T, V>& b) {
#pragma unroll
  for (int i = 0; i < V; ++i) a.set(i, a[i] + b[i]);
  return a;
}

// s_rh = x_rh + residual_rh (rounded to T; s = x without a residual)
// m_r = sum_h s_rh / H (LayerNorm; else 0),  a_r = 1 / sqrt(sum_h (s_rh - m_r)^2 / H + eps)
// y_rh = (s_rh - m_r) a_r (weight_h + offset) + bias_h
// r rows, h columns, H of them. A team of threads has one row; sums in fp32, in a fixed order.
template <typename T, int V, bool kCentred>
__global__ void MJ_BOUNDS(kMostTeam, 1) norm_rows(NormForward task, int team) {
  __shared__ float scratch[32];
  const int lane = static_cast<int>(threadIdx.x) % team;
  const int64_t row = int64_t{blockIdx.x} * (blockDim.x / team) + threadIdx.x / team;
  const bool inside = row < task.rule.rows;
  const int width = static_cast<int>(task.rule.columns / V);
  const int packs = inside ? width : 0;
  const Pack<T, V>* x = row_of<T, V>(task.x, row, width);
  Pack<T, V> held[kHeld];
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (lane + k * team < packs) held[k] = x[lane + k * team];
  }
  if (task.residual != nullptr) {
    const Pack<T, V>* residual = row_of<T, V>(task.residual, row, width);
    Pack<T, V>* sum = row_of<T, V>(task.sum, row, width);
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      const int at = lane + k * team;
      if (at >= packs) continue;
      held[k] = added(held[k], residual[at]);
      sum[at] = held[k];
    }
    for (int at = lane + kHeld * team; at < packs; at += team) sum[at] = added(x[at], residual[at]);
    x = sum;
  }
  const float inverse = 1.0f / static_cast<float>(task.rule.columns);
  float mean = 0.0f;
  if constexpr (kCentred) {
    each_pack(held, x, packs, team, [&](int, const Pack<T, V>& pack) {
#pragma unroll
      for (int i = 0; i < V; ++i) mean += pack[i];
    });
    mean = over_team(mean, team, scratch, Sum{}) * inverse;
  }
  float square = 0.0f;
  each_pack(held, x, packs, team, [&](int, const Pack<T, V>& pack) {
#pragma unroll
    for (int i = 0; i < V; ++i) square += (pack[i] - mean) * (pack[i] - mean);
  });
  square = over_team(square, team, scratch, Sum{}) * inverse;
  const float scale = 1.0f / sqrtf(square + task.rule.eps);
  if (inside && lane == 0) {
    task.scale[row] = scale;
    if constexpr (kCentred) task.mean[row] = mean;
  }
  const Pack<T, V>* weight = row_of<T, V>(task.weight, 0, width);
  const Pack<T, V>* bias = row_of<T, V>(task.bias, 0, width);
  Pack<T, V>* y = row_of<T, V>(task.y, row, width);
  const float offset = task.rule.offset ? 1.0f : 0.0f;
  each_pack(held, x, packs, team, [&](int at, const Pack<T, V>& pack) {
    const Pack<T, V> w = weight[at];
    Pack<T, V> b{}, out;
    if (kCentred && bias != nullptr) b = bias[at];
#pragma unroll
    for (int i = 0; i < V; ++i) out.set(i, (pack[i] - mean) * scale * (w[i] + offset) + b[i]);
    y[at] = out;
  });
}

}  // namespace

void norm_forward(const NormForward& task, Stream stream) {
  const NormRule& rule = task.rule;
  if (rule.rows == 0 || rule.columns == 0) return;
  const auto run = [&]<typename N>(N) {
    const Teams teams = teams_for(rule.rows, rule.columns / N::V, kHeld, 128);
    const auto kernel =
        rule.centred ? norm_rows<typename N::T, N::V, true> : norm_rows<typename N::T, N::V, false>;
    launch("norm_forward", kernel, {teams.blocks}, teams.threads, 0, stream, task, teams.team);
  };
  with_numbers(rule.dtype, rule.columns, run, task.x, task.residual, task.weight, task.bias, task.y,
               task.sum);
}

}  // namespace mj
