#include <algorithm>

#include "cuda/column_sums.h"
#include "cuda/norm.h"
#include "cuda/numbers.h"

namespace mj {

namespace {

// Packs of a row that a thread holds, with their sums: fewer where there is a sum for the bias too.
template <bool kCentred>
constexpr int kHeld = kCentred ? 2 : 4;
constexpr int kLeast = 256;  // threads of a block

struct RowFacts {
  float mean, scale;        // m_r, a_r
  float gradient, product;  // c1_r (0 for RMSNorm), c2_r
};

MJ_DEVICE float normal(float x, const RowFacts& row) { return (x - row.mean) * row.scale; }

// What one thread adds up over rows for V columns.
template <int V, bool kCentred>
struct Sums {
  float weight[V] = {};
  float bias[kCentred ? V : 1] = {};

  template <typename T>
  MJ_DEVICE void add(const Pack<T, V>& dy, const Pack<T, V>& x, const RowFacts& row) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      weight[i] += dy[i] * normal(x[i], row);
      if constexpr (kCentred) bias[i] += dy[i];
    }
  }

  // Put to `to`, V for the weight, and `columns` further V for the bias; `more`: add to what is there.
  MJ_DEVICE void put(float* to, int64_t columns, bool more) const {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      to[i] = more ? to[i] + weight[i] : weight[i];
      if constexpr (kCentred) to[columns + i] = more ? to[columns + i] + bias[i] : bias[i];
    }
  }
};

template <typename T, int V>
MJ_DEVICE void add_products(Two& sums, const Pack<T, V>& dy, const Pack<T, V>& x,
                            const Pack<T, V>& w, float offset, const RowFacts& row) {
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const float g = dy[i] * (w[i] + offset);
    sums.first += g;
    sums.second += g * normal(x[i], row);
  }
}

template <typename T, int V>
MJ_DEVICE Pack<T, V> gradient(const Pack<T, V>& dy, const Pack<T, V>& x, const Pack<T, V>& w,
                              const Pack<T, V>& dsum, float offset, const RowFacts& row) {
  Pack<T, V> dx;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const float inner = dy[i] * (w[i] + offset) - row.gradient - normal(x[i], row) * row.product;
    dx.set(i, row.scale * inner + dsum[i]);
  }
  return dx;
}

// n_rh = (x_rh - m_r) a_r,  g_rh = dy_rh (weight_h + offset)
// c1_r = sum_h g_rh / H (0 for RMSNorm),  c2_r = sum_h g_rh n_rh / H
// dx_rh = a_r (g_rh - c1_r - n_rh c2_r) + dsum_rh
// partial_b,h = sum_r dy_rh n_rh,  partial_b,H+h = sum_r dy_rh over the rows r of block b
// r rows, h columns, H of them. Rows go to teams in turn, by the shape alone; sums in fp32, in a
// fixed order, without atomics.
template <typename T, int V, bool kCentred>
__global__ void MJ_BOUNDS(kMostTeam, 1) norm_gradients(NormBackward task, int team) {
  constexpr int kOwn = kHeld<kCentred>;
  __shared__ Two scratch[32];
  const int lane = static_cast<int>(threadIdx.x) % team;
  const int own = static_cast<int>(threadIdx.x) / team;
  const int teams = static_cast<int>(blockDim.x) / team;
  const int width = static_cast<int>(task.rule.columns / V);
  const float offset = task.rule.offset ? 1.0f : 0.0f;
  const float inverse = 1.0f / static_cast<float>(task.rule.columns);
  const Pack<T, V>* weight = row_of<T, V>(task.weight, 0, width);
  const int64_t columns = task.rule.columns;
  float* partial = task.partial + blockIdx.x * columns * (kCentred ? 2 : 1);
  const int64_t stride = int64_t{gridDim.x} * teams;
  Sums<V, kCentred> sums[kOwn];
  for (int64_t first = int64_t{blockIdx.x} * teams; first < task.rule.rows; first += stride) {
    const int64_t index = first + own;
    const bool inside = index < task.rule.rows;
    const int packs = inside ? width : 0;
    const Pack<T, V>* x = row_of<T, V>(task.x, index, width);
    const Pack<T, V>* dy = row_of<T, V>(task.dy, index, width);
    Pack<T, V> held_x[kOwn], held_dy[kOwn];
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      if (lane + k * team >= packs) continue;
      held_x[k] = x[lane + k * team];
      held_dy[k] = dy[lane + k * team];
    }
    RowFacts row{};
    if (inside) row.scale = task.scale[index];
    if (kCentred && inside) row.mean = task.mean[index];
    Two means{};
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const int at = lane + k * team;
      if (at < packs) add_products(means, held_dy[k], held_x[k], weight[at], offset, row);
    }
    for (int at = lane + kOwn * team; at < packs; at += team) {
      add_products(means, dy[at], x[at], weight[at], offset, row);
    }
    means = over_team(means, team, scratch, SumTwo{});
    row.gradient = kCentred ? means.first * inverse : 0.0f;
    row.product = means.second * inverse;
    const Pack<T, V>* dsum = row_of<T, V>(task.dsum, index, width);
    Pack<T, V>* dx = row_of<T, V>(task.dx, index, width);
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const int at = lane + k * team;
      if (at >= packs) continue;
      const Pack<T, V> more = task.dsum != nullptr ? dsum[at] : Pack<T, V>{};
      sums[k].add(held_dy[k], held_x[k], row);
      dx[at] = gradient(held_dy[k], held_x[k], weight[at], more, offset, row);
    }
    for (int at = lane + kOwn * team; at < packs; at += team) {
      // beyond what registers hold there is one team, whose threads alone see their columns
      const Pack<T, V> more = task.dsum != nullptr ? dsum[at] : Pack<T, V>{};
      Sums<V, kCentred> once;
      once.add(dy[at], x[at], row);
      once.put(partial + int64_t{at} * V, columns, first >= stride);
      dx[at] = gradient(dy[at], x[at], weight[at], more, offset, row);
    }
  }
  if (teams == 1) {
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const int at = lane + k * team;
      if (at < width) sums[k].put(partial + int64_t{at} * V, columns, false);
    }
    return;
  }
  float* block = shared_memory<float>();
  for (int turn = 0; turn < teams; ++turn) {
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      const int at = lane + k * team;
      if (own == turn && at < width) sums[k].put(block + at * V, columns, turn > 0);
    }
    __syncthreads();
  }
  for (int at = threadIdx.x; at < columns * (kCentred ? 2 : 1); at += blockDim.x) {
    partial[at] = block[at];
  }
}

template <typename T, int V, bool kCentred>
int64_t run(const NormBackward& task, Stream stream) {
  const NormRule& rule = task.rule;
  const Teams teams = teams_for(rule.rows, rule.columns / V, kHeld<kCentred>, kLeast);
  const int64_t blocks = std::min(teams.blocks, kNormBlocks);
  const size_t width = static_cast<size_t>(rule.columns) * (kCentred ? 2 : 1);
  const size_t shared = teams.in_block() > 1 ? width * sizeof(float) : 0;
  launch("norm_backward", norm_gradients<T, V, kCentred>, {blocks}, teams.threads, shared, stream,
         task, teams.team);
  return blocks;
}

}  // namespace

void norm_backward(const NormBackward& task, Stream stream) {
  const NormRule& rule = task.rule;
  int64_t blocks = 0;
  const auto work = [&]<typename N>(N) {
    using T = typename N::T;
    blocks = rule.centred ? run<T, N::V, true>(task, stream) : run<T, N::V, false>(task, stream);
  };
  if (rule.rows > 0 && rule.columns > 0) {
    with_numbers(rule.dtype, rule.columns, work, task.dy, task.x, task.weight, task.dsum, task.dx);
  }
  void* dbias = rule.centred ? task.dbias : nullptr;
  column_sums({task.partial, blocks, rule.columns, rule.dtype, task.dweight, dbias}, stream);
}

}  // namespace mj
