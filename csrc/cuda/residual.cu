#include "cuda/residual.h"

#include "cuda/column_sums.h"
#include "cuda/numbers.h"
#include "cuda/philox.h"

namespace mj {

namespace {

// y_rh = k_rh (x_rh + bias_h) + residual_rh; k_rh is 0 where 16 bits that Philox draws from the seed
// and the place r H + h say so, else 1 / (share kept). r rows, h columns, H of them.
template <typename T, int V, bool kDrops>
__global__ void MJ_BOUNDS(kTile, 5) add_to_stream(ResidualForward task, int across) {
  const Place place(across);
  const int packs = static_cast<int>(task.rule.columns / V);
  if (place.column >= packs) return;
  Pack<T, V> bias{};
  if (task.bias != nullptr) bias = row_of<T, V>(task.bias, 0, packs)[place.column];
  const int64_t seed = kDrops ? *task.rule.seed : 0;
  for (int64_t row = place.row; row < task.rule.rows; row += place.step) {
    const Pack<T, V> x = row_of<T, V>(task.x, row, packs)[place.column];
    const Pack<T, V> residual = row_of<T, V>(task.residual, row, packs)[place.column];
    Pack<T, V> y;
    if constexpr (kDrops) {
      const Kept<V> kept(task.rule.dropout, seed, (row * packs + place.column) * V);
#pragma unroll
      for (int i = 0; i < V; ++i) y.set(i, kept.at[i] * (x[i] + bias[i]) + residual[i]);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) y.set(i, x[i] + bias[i] + residual[i]);
    }
    row_of<T, V>(task.y, row, packs)[place.column] = y;
  }
}

// dx_rh = k_rh dy_rh,  partial_bh = sum_r dx_rh (not rounded) over the rows r of the blocks b at one
// height; in an order that depends on the shape alone, without atomics.
template <typename T, int V, bool kDrops>
__global__ void MJ_BOUNDS(kTile, kDrops ? 5 : 4) stream_gradients(ResidualBackward task, int across) {
  const Place place(across);
  const int packs = static_cast<int>(task.rule.columns / V);
  const bool inside = place.column < packs;
  const int64_t seed = kDrops ? *task.rule.seed : 0;
  float sums[V] = {};
  const auto read = [&](int64_t row) { return row_of<T, V>(task.dy, row, packs)[place.column]; };
  const int64_t rows = inside ? task.rule.rows : 0;
  each_row<kDrops ? 2 : 4>(place, rows, read, [&](int64_t row, const Pack<T, V>& dy) {
    if constexpr (kDrops) {
      const Kept<V> kept(task.rule.dropout, seed, (row * packs + place.column) * V);
      Pack<T, V> dx;
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const float gradient = kept.at[i] * dy[i];
        dx.set(i, gradient);
        sums[i] += gradient;
      }
      row_of<T, V>(task.dx, row, packs)[place.column] = dx;
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) sums[i] += dy[i];
    }
  });
  if (task.dbias == nullptr) return;
  if (!add_rows(sums, across) || !inside) return;
  float* partial = task.partial + (int64_t{blockIdx.y} * packs + place.column) * V;
#pragma unroll
  for (int i = 0; i < V; ++i) partial[i] = sums[i];
}

}  // namespace

void residual_forward(const ResidualForward& task, Stream stream) {
  const ResidualRule& rule = task.rule;
  if (rule.rows == 0 || rule.columns == 0) return;
  const auto run = [&]<typename N>(N) {
    using T = typename N::T;
    const Tile tile = tile_for(rule.rows, rule.columns / N::V);
    const auto kernel =
        rule.seed != nullptr ? add_to_stream<T, N::V, true> : add_to_stream<T, N::V, false>;
    launch("residual_forward", kernel, tile.grid, kTile, 0, stream, task, tile.across);
  };
  with_numbers(rule.dtype, rule.columns, run, task.x, task.bias, task.residual, task.y);
}

void residual_backward(const ResidualBackward& task, Stream stream) {
  const ResidualRule& rule = task.rule;
  const bool drops = rule.seed != nullptr, sums = task.dbias != nullptr;
  int64_t parts = 0;
  const auto run = [&]<typename N>(N) {
    using T = typename N::T;
    const Tile tile = tile_for(rule.rows, rule.columns / N::V, sums ? kSummingBlocks : kBlocks);
    const auto kernel = drops ? stream_gradients<T, N::V, true> : stream_gradients<T, N::V, false>;
    const size_t shared = sums ? size_t(tile.across) * N::V * sizeof(float) : 0;
    launch("residual_backward", kernel, tile.grid, kTile, shared, stream, task, tile.across);
    parts = tile.grid.y;
  };
  if (rule.rows > 0 && rule.columns > 0 && (drops || sums)) {
    with_numbers(rule.dtype, rule.columns, run, task.dy, task.dx);
  }
  if (sums) {
    column_sums({task.partial, parts, rule.columns, rule.dtype, task.dbias, nullptr}, stream);
  }
}

}  // namespace mj
