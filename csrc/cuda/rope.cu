#include "cuda/rope.h"

#include "cuda/numbers.h"

namespace mj {

namespace {

// One number of a pair: `own` and `other` of it, which stands before it or after it. Of the first
// (a): a c_a - b d_a, back a c_a + b d_b; of the second (b): b c_b + a d_b, back b c_b - a d_a.
MJ_BOTH float turned(float own, float other, float cos, float sin_own, float sin_other,
                     bool is_first, bool inverse) {
  const float sine = inverse ? sin_other : sin_own;
  return own * cos + (is_first == inverse ? other : -other) * sine;
}

template <typename T, int V>
MJ_DEVICE void turn_halves(const Rope& task, const T* x, T* y, const T* cos, const T* sin, int at) {
  using P = Pack<T, V>;
  const int64_t half = task.turned / 2;
  const int64_t low = int64_t{at} * V;
  const auto pack = [](const T* from) { return *reinterpret_cast<const P*>(from); };
  const P a = pack(x + low), b = pack(x + half + low);
  const P cos_a = pack(cos + low), cos_b = pack(cos + half + low);
  const P sin_a = pack(sin + low), sin_b = pack(sin + half + low);
  P out_a, out_b;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    out_a.set(i, turned(a[i], b[i], cos_a[i], sin_a[i], sin_b[i], true, task.inverse));
    out_b.set(i, turned(b[i], a[i], cos_b[i], sin_b[i], sin_a[i], false, task.inverse));
  }
  *reinterpret_cast<P*>(y + low) = out_a;
  *reinterpret_cast<P*>(y + half + low) = out_b;
}

// V numbers, V / 2 pairs. Two are read one by one: heads may begin anywhere.
template <typename T, int V>
MJ_DEVICE void turn_neighbours(const Rope& task, const T* x, T* y, const T* cos, const T* sin,
                               int at) {
  using P = Pack<T, V>;
  const int64_t low = int64_t{at} * V;
  const auto pack = [low](const T* from) {
    if constexpr (V == 2) return P{{from[low], from[low + 1]}};
    return *reinterpret_cast<const P*>(from + low);
  };
  const P in = pack(x), c = pack(cos), s = pack(sin);
  P out;
#pragma unroll
  for (int i = 0; i < V; i += 2) {
    const float a = in[i], b = in[i + 1];
    out.set(i, turned(a, b, c[i], s[i], s[i + 1], true, task.inverse));
    out.set(i + 1, turned(b, a, c[i + 1], s[i + 1], s[i], false, task.inverse));
  }
  if constexpr (V == 2) {
    y[low] = out.at[0];
    y[low + 1] = out.at[1];
  } else {
    *reinterpret_cast<P*>(y + low) = out;
  }
}

// y_sbnj = x_sbnj cos_sj -+ x_sbnk sin, with k the other column of j's pair: see Rope. s positions,
// b sequences, n heads, j columns; y_sbnj = x_sbnj for j >= R. A block has one (s, b).
template <typename T, int V, bool kInterleaved>
__global__ void MJ_BOUNDS(kRopeThreads, sizeof(T) == 4 ? 3 : kInterleaved ? 5 : 4)
    turn_heads(Rope task, RopePlan plan) {
  constexpr int kCopied = V == 2 ? 1 : V;
  const int64_t position = blockIdx.x / task.sequences, sequence = blockIdx.x % task.sequences;
  const int lane = static_cast<int>(threadIdx.x) % plan.lanes;
  const int step = static_cast<int>(blockDim.x) / plan.lanes;
  const T* cos = static_cast<const T*>(task.cos) + position * task.turned;
  const T* sin = static_cast<const T*>(task.sin) + position * task.turned;
  const T* row = static_cast<const T*>(task.x) + position * task.strides[0] +
                 sequence * task.strides[1];
  T* out = static_cast<T*>(task.y) + int64_t{blockIdx.x} * task.heads * task.columns;
  for (int head = static_cast<int>(threadIdx.x) / plan.lanes; head < task.heads; head += step) {
    const T* x = row + head * task.strides[2];
    T* y = out + head * task.columns;
    for (int at = lane; at < plan.turning + plan.copying; at += plan.lanes) {
      if (at >= plan.turning) {
        using P = Pack<T, kCopied>;
        const int64_t copied = task.turned + int64_t{at - plan.turning} * kCopied;
        *reinterpret_cast<P*>(y + copied) = *reinterpret_cast<const P*>(x + copied);
      } else if constexpr (kInterleaved) {
        turn_neighbours<T, V>(task, x, y, cos, sin, at);
      } else {
        turn_halves<T, V>(task, x, y, cos, sin, at);
      }
    }
  }
}

// The largest number that divides all: of columns that begin a pack.
int64_t common(const Rope& task) {
  const int64_t part = task.interleaved ? task.turned : task.turned / 2;
  int64_t all = part | task.columns;
  for (const int64_t stride : task.strides) all |= stride;
  return all & -all;
}

}  // namespace

void rope(const Rope& task, Stream stream) {
  const int64_t rows = task.positions * task.sequences;
  if (rows == 0 || task.heads == 0 || task.columns == 0) return;
  MJ_CHECK(task.turned % 2 == 0 && task.turned <= task.columns, "turned must be even and at most ",
           task.columns, ", got ", task.turned);
  const auto run = [&]<typename N>(N) {
    using T = typename N::T;
    if (task.interleaved) {
      constexpr int kPairs = N::V == 1 ? 2 : N::V;
      const RopePlan plan = rope_plan(task.heads, task.columns, task.turned, {kPairs, N::V});
      launch("rope", turn_heads<T, kPairs, true>, {rows}, plan.threads, 0, stream, task, plan);
    } else {
      const RopePlan plan = rope_plan(task.heads, task.columns, task.turned, {2 * N::V, N::V});
      launch("rope", turn_heads<T, N::V, false>, {rows}, plan.threads, 0, stream, task, plan);
    }
  };
  with_numbers(task.dtype, common(task), run, task.x, task.cos, task.sin, task.y);
}

}  // namespace mj
