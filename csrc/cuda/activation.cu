#include "cuda/activation.h"

#include "cuda/activation_formulas.h"
#include "cuda/column_sums.h"
#include "cuda/numbers.h"

namespace mj {

namespace {

// Of one row and column of packs: what is activated, what that is multiplied with, and the gradient
// of the product.
template <typename T, int V>
struct Read {
  Pack<T, V> first, second, dy;
};

template <typename T, int V>
struct Biased {
  float at[V];

  MJ_DEVICE Biased(const Pack<T, V>& x, const Pack<T, V>& bias) {
#pragma unroll
    for (int i = 0; i < V; ++i) at[i] = x[i] + bias[i];
  }
};

// a_rj = x_rj + bias_j
// y_rf = f(a_rf) a_r,F+f where it is gated, else f(a_rf); r rows, f columns, F of them.
template <typename T, int V, bool kGated>
__global__ void MJ_BOUNDS(kTile, kGated ? 3 : 4) activate(ActivationForward task, int across) {
  const Place place(across);
  const int packs = static_cast<int>(task.rule.columns / V);
  if (place.column >= packs) return;
  Pack<T, V> bias{}, value_bias{};
  if (task.bias != nullptr) {
    const Pack<T, V>* all = row_of<T, V>(task.bias, 0, packs);
    bias = all[place.column];
    if constexpr (kGated) value_bias = all[packs + place.column];
  }
  const auto read = [&](int64_t row) {
    const Pack<T, V>* x = row_of<T, V>(task.x, row, kGated ? 2 * packs : packs);
    Read<T, V> in{};
    in.first = x[place.column];
    if constexpr (kGated) in.second = x[packs + place.column];
    return in;
  };
  each_row<2>(place, task.rule.rows, read, [&](int64_t row, const Read<T, V>& in) {
    const Biased<T, V> a(in.first, bias), value(in.second, value_bias);
    Pack<T, V> out;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float active = activated(task.rule.function, a.at[i]).value;
      out.set(i, kGated ? active * value.at[i] : active);
    }
    row_of<T, V>(task.y, row, packs)[place.column] = out;
  });
}

// dx_rf = dy_rf f'(a_rf) a_r,F+f,  dx_r,F+f = dy_rf f(a_rf) where it is gated,
// else dx_rf = dy_rf f'(a_rf)
// partial_bj = sum_r dx_rj (not rounded) over the rows r of the blocks b at one height; in an order
// that depends on the shape alone, without atomics.
template <typename T, int V, bool kGated>
__global__ void MJ_BOUNDS(kTile, 3) activation_gradients(ActivationBackward task, int across) {
  const Place place(across);
  const int packs = static_cast<int>(task.rule.columns / V);
  const int width = kGated ? 2 * packs : packs;
  const bool inside = place.column < packs;
  Pack<T, V> bias{}, value_bias{};
  if (task.bias != nullptr && inside) {
    const Pack<T, V>* all = row_of<T, V>(task.bias, 0, packs);
    bias = all[place.column];
    if constexpr (kGated) value_bias = all[packs + place.column];
  }
  float sums[V] = {}, value_sums[V] = {};
  const auto read = [&](int64_t row) {
    const Pack<T, V>* x = row_of<T, V>(task.x, row, width);
    Read<T, V> in{};
    in.first = x[place.column];
    if constexpr (kGated) in.second = x[packs + place.column];
    in.dy = row_of<T, V>(task.dy, row, packs)[place.column];
    return in;
  };
  const int64_t rows = inside ? task.rule.rows : 0;
  each_row<kGated ? 1 : 2>(place, rows, read, [&](int64_t row, const Read<T, V>& in) {
    const Biased<T, V> a(in.first, bias), value(in.second, value_bias);
    Pack<T, V> out, value_out;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const ValueSlope f = activated(task.rule.function, a.at[i]);
      const float gradient = in.dy[i] * f.slope * (kGated ? value.at[i] : 1.0f);
      const float value_gradient = in.dy[i] * f.value;
      out.set(i, gradient);
      value_out.set(i, value_gradient);
      sums[i] += gradient;
      value_sums[i] += value_gradient;
    }
    Pack<T, V>* dx = row_of<T, V>(task.dx, row, width);
    dx[place.column] = out;
    if constexpr (kGated) dx[packs + place.column] = value_out;
  });
  if (task.dbias == nullptr) return;
  float* partial = task.partial + (int64_t{blockIdx.y} * width + place.column) * V;
  if (add_rows(sums, across) && inside) {
#pragma unroll
    for (int i = 0; i < V; ++i) partial[i] = sums[i];
  }
  if constexpr (kGated) {
    __syncthreads();
    if (add_rows(value_sums, across) && inside) {
#pragma unroll
      for (int i = 0; i < V; ++i) partial[packs * V + i] = value_sums[i];
    }
  }
}

bool is_known(Activation function) {
  return function >= Activation::silu && function <= Activation::gelu_tanh;
}

}  // namespace

void activation_forward(const ActivationForward& task, Stream stream) {
  const ActivationRule& rule = task.rule;
  MJ_CHECK(is_known(rule.function), "function must be 0, 1 or 2, got ", int(rule.function));
  if (rule.rows == 0 || rule.columns == 0) return;
  const auto run = [&]<typename N>(N) {
    using T = typename N::T;
    const Tile tile = tile_for(rule.rows, rule.columns / N::V);
    const auto kernel = rule.gated ? activate<T, N::V, true> : activate<T, N::V, false>;
    launch("activation_forward", kernel, tile.grid, kTile, 0, stream, task, tile.across);
  };
  with_numbers(rule.dtype, rule.columns, run, task.x, task.bias, task.y);
}

void activation_backward(const ActivationBackward& task, Stream stream) {
  const ActivationRule& rule = task.rule;
  MJ_CHECK(is_known(rule.function), "function must be 0, 1 or 2, got ", int(rule.function));
  const bool sums = task.dbias != nullptr;
  int64_t parts = 0;
  const auto run = [&]<typename N>(N) {
    using T = typename N::T;
    const Tile tile =
        tile_for(rule.rows, rule.columns / N::V, sums ? kSummingBlocks : kBlocks);
    const auto kernel =
        rule.gated ? activation_gradients<T, N::V, true> : activation_gradients<T, N::V, false>;
    const size_t shared = sums ? size_t(tile.across) * N::V * sizeof(float) : 0;
    launch("activation_backward", kernel, tile.grid, kTile, shared, stream, task, tile.across);
    parts = tile.grid.y;
  };
  if (rule.rows > 0 && rule.columns > 0) {
    with_numbers(rule.dtype, rule.columns, run, task.dy, task.x, task.bias, task.dx);
  }
  const int64_t width = rule.gated ? 2 * rule.columns : rule.columns;
  if (sums) column_sums({task.partial, parts, width, rule.dtype, task.dbias, nullptr}, stream);
}

}  // namespace mj
