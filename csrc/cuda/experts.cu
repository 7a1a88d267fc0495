#include "cuda/experts.h"

#include "cuda/numbers.h"
#include "cuda/team.h"

namespace mj {

namespace {

constexpr int kHeld = 4;   // packs of a row that a thread reads before it works on the first
constexpr int kLeast = 128;

// The row of this team; `inside`: whether there is one.
struct Own {
  int lane;
  int64_t row;
  bool inside;

  MJ_DEVICE Own(int team, int64_t rows)
      : lane(static_cast<int>(threadIdx.x) % team),
        row(int64_t{blockIdx.x} * (blockDim.x / team) + threadIdx.x / team),
        inside(row < rows) {}
};

// out_ph = x_source_p,h;  p places, h columns. A team has one place.
template <typename T, int V>
__global__ void MJ_BOUNDS(kMostTeam, 1) gather(GatherRows task, int team) {
  const Own own(team, task.rows);
  if (!own.inside) return;
  const int width = static_cast<int>(task.columns / V);
  const int64_t source = task.source[own.row];
  const Pack<T, V>* x = row_of<T, V>(task.x, source < 0 ? 0 : source, width);
  Pack<T, V>* out = row_of<T, V>(task.out, own.row, width);
  for (int first = own.lane; first < width; first += kHeld * team) {
    Pack<T, V> held[kHeld] = {};
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      if (source >= 0 && first + k * team < width) held[k] = x[first + k * team];
    }
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      if (first + k * team < width) out[first + k * team] = held[k];
    }
  }
}

// y_th = sum_k weight_tk x_place_tk,h, in the order of k;  t tokens, h columns. A team has one token.
template <typename T, int V>
__global__ void MJ_BOUNDS(kMostTeam, 1) combine(CombineForward task, int team) {
  const CombineRule& rule = task.rule;
  const Own own(team, rule.tokens);
  if (!own.inside) return;
  const int width = static_cast<int>(rule.columns / V);
  const int64_t* places = task.places + own.row * rule.visits;
  const float* weights = task.weights == nullptr ? nullptr : task.weights + own.row * rule.visits;
  for (int at = own.lane; at < width; at += team) {
    float sums[V] = {};
#pragma unroll 4
    for (int k = 0; k < rule.visits; ++k) {
      if (places[k] < 0) continue;
      const Pack<T, V> x = row_of<T, V>(task.x, places[k], width)[at];
      const float weight = weights == nullptr ? 1.0f : weights[k];
#pragma unroll
      for (int i = 0; i < V; ++i) sums[i] += weight * x[i];
    }
    Pack<T, V> y;
#pragma unroll
    for (int i = 0; i < V; ++i) y.set(i, sums[i]);
    row_of<T, V>(task.y, own.row, width)[at] = y;
  }
}

// dx_place_tk,h = weight_tk dy_th,  dweight_tk = sum_h dy_th x_place_tk,h
// t tokens, k visits, h columns. A team has one token; fixed order of sums.
template <typename T, int V>
__global__ void MJ_BOUNDS(kMostTeam, 1) combine_gradients(CombineBackward task, int team) {
  __shared__ float scratch[32];
  const CombineRule& rule = task.rule;
  const Own own(team, rule.tokens);
  const int width = static_cast<int>(rule.columns / V);
  const int packs = own.inside ? width : 0;
  const Pack<T, V>* dy = row_of<T, V>(task.dy, own.row, width);
  for (int64_t k = 0; k < rule.visits; ++k) {
    const int64_t visit = own.row * rule.visits + k;
    const int64_t place = own.inside ? task.places[visit] : -1;
    const float weight = own.inside && task.weights != nullptr ? task.weights[visit] : 1.0f;
    float product = 0.0f;
    for (int at = own.lane; at < packs && place >= 0; at += team) {
      const Pack<T, V> slope = dy[at];
      Pack<T, V> out;
#pragma unroll
      for (int i = 0; i < V; ++i) out.set(i, weight * slope[i]);
      row_of<T, V>(task.dx, place, width)[at] = out;
      if (task.dweights == nullptr) continue;
      const Pack<T, V> x = row_of<T, V>(task.x, place, width)[at];
#pragma unroll
      for (int i = 0; i < V; ++i) product += slope[i] * x[i];
    }
    if (task.dweights == nullptr) continue;
    product = over_team(product, team, scratch, Sum{});
    if (own.inside && own.lane == 0) task.dweights[visit] = product;
  }
}

}  // namespace

void gather_rows(const GatherRows& task, Stream stream) {
  if (task.rows == 0 || task.columns == 0) return;
  const auto run = [&]<typename N>(N) {
    const Teams teams = teams_for(task.rows, task.columns / N::V, kHeld, kLeast);
    launch("gather_rows", gather<typename N::T, N::V>, {teams.blocks}, teams.threads, 0, stream,
           task, teams.team);
  };
  with_numbers(task.dtype, task.columns, run, task.x, task.out);
}

void combine_forward(const CombineForward& task, Stream stream) {
  if (task.rule.tokens == 0 || task.rule.columns == 0) return;
  const auto run = [&]<typename N>(N) {
    const Teams teams = teams_for(task.rule.tokens, task.rule.columns / N::V, kHeld, kLeast);
    launch("combine_forward", combine<typename N::T, N::V>, {teams.blocks}, teams.threads, 0,
           stream, task, teams.team);
  };
  with_numbers(task.rule.dtype, task.rule.columns, run, task.x, task.y);
}

void combine_backward(const CombineBackward& task, Stream stream) {
  if (task.rule.tokens == 0 || task.rule.columns == 0) return;
  const auto run = [&]<typename N>(N) {
    const Teams teams = teams_for(task.rule.tokens, task.rule.columns / N::V, kHeld, kLeast);
    launch("combine_backward", combine_gradients<typename N::T, N::V>, {teams.blocks},
           teams.threads, 0, stream, task, teams.team);
  };
  with_numbers(task.rule.dtype, task.rule.columns, run, task.dy, task.x, task.dx);
}

}  // namespace mj
