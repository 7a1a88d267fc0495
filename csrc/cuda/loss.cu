#include "cuda/loss.h"

#include "cuda/loss_formulas.h"
#include "cuda/numbers.h"
#include "cuda/team.h"

namespace mj {

namespace {

constexpr int kMost = 1024;  // threads of a block

// work(index, pack) for each pack of a row that this thread has, of which it reads kAhead before it
// works on the first.
template <int kAhead, typename T, int V, typename Work>
MJ_DEVICE void each_pack(const Pack<T, V>* row, int packs, const Work& work) {
  const int threads = static_cast<int>(blockDim.x);
  for (int first = threadIdx.x; first < packs; first += kAhead * threads) {
    Pack<T, V> ahead[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (first + k * threads < packs) ahead[k] = row[first + k * threads];
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (first + k * threads < packs) work(first + k * threads, ahead[k]);
    }
  }
}

// The sums over a row of which each thread has added its packs, to every thread.
MJ_DEVICE RunningSum over_block(RunningSum own) {
  __shared__ float most[32];
  __shared__ Two sums[32];
  const int threads = static_cast<int>(blockDim.x);
  const float largest = over_team(own.most, threads, most, Largest{});
  if (own.most > kNone) own.raise(largest);
  const Two two = over_team(Two{own.sum, own.total}, threads, sums, SumTwo{});
  return {largest, two.first, two.second};
}

// Capped in place where there is a cap, and added up.
template <typename T, int V>
MJ_DEVICE RunningSum sums_of(const LossRule& rule, Pack<T, V>* x, int packs) {
  RunningSum own;
  each_pack<4>(static_cast<const Pack<T, V>*>(x), packs, [&](int at, Pack<T, V> pack) {
    if (rule.cap > 0.0f) {
#pragma unroll
      for (int i = 0; i < V; ++i) pack.set(i, capped(pack[i], rule.cap));
      x[at] = pack;
    }
    own.add<Pack<T, V>, V>(pack);
  });
  return over_block(own);
}

// x of the target, by the one thread that knows the row to be finished; 0 where it is not here.
template <typename T, int V>
MJ_DEVICE float chosen_of(const LossRule& rule, const Pack<T, V>* x, int64_t target) {
  if (!is_valid(rule, target)) return NAN;
  const int64_t place = target - rule.first;
  const bool here = place >= 0 && place < rule.columns;
  return here ? widen(reinterpret_cast<const T*>(x)[place]) : 0.0f;
}

template <typename T, int V>
MJ_DEVICE void put_gradient(const LossRule& rule, const Pack<T, V>* x, Pack<T, V>* gradient,
                            int64_t target, const RowSlope& slope) {
  const int64_t place = target - rule.first;
  const bool here = place >= 0 && place < rule.columns;
  const int chosen = here ? static_cast<int>(place) : -1;
  const bool counts = target != rule.ignored && slope.weight != 0.0f;
  each_pack<2>(x, static_cast<int>(rule.columns / V), [&](int at, const Pack<T, V>& pack) {
    Pack<T, V> out{};
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float taken = at * V + i == chosen ? 1.0f - rule.smoothing : 0.0f;
      if (counts) out.set(i, slope.at(pack[i], taken));
    }
    gradient[at] = out;
  });
}

// x_rj = cap tanh(logit_rj / cap), in place, or the logit without a cap
// parts_0r = max_j x_rj,  parts_1r = sum_j exp(x_rj - parts_0r),  parts_2r = x_r,target,
// parts_3r = sum_j x_rj;  r rows, j columns. A block has one row; sums in fp32, in a fixed order.
template <typename T, int V>
__global__ void MJ_BOUNDS(kMost, 1) add_row_parts(LossParts task) {
  const LossRule& rule = task.rule;
  const int64_t row = blockIdx.x;
  const int packs = static_cast<int>(rule.columns / V);
  Pack<T, V>* x = row_of<T, V>(task.logits, row, packs);
  const RunningSum found = sums_of(rule, x, packs);  // after it all see what all have written
  if (threadIdx.x > 0) return;
  task.parts[row] = found.most;
  task.parts[rule.rows + row] = found.sum;
  task.parts[2 * rule.rows + row] = chosen_of(rule, x, task.targets[row]);
  task.parts[3 * rule.rows + row] = found.total;
}

// gradient_rj = weight_r (p_rj (1 + 2 z l_r) - (1 - s) [j = target_r] - s / vocab) dx_rj/dlogit_rj
// p_rj = exp(x_rj - l_r), s smoothing, z z_loss; 0 where the target is ignored. A block has one row.
template <typename T, int V>
__global__ void MJ_BOUNDS(kMost, 1) put_row_gradient(LossGradient task) {
  const int64_t row = blockIdx.x;
  const int packs = static_cast<int>(task.rule.columns / V);
  const RowSlope slope(task.rule, task.logsum[row], task.weights[row]);
  put_gradient(task.rule, row_of<T, V>(task.x, row, packs),
               row_of<T, V>(task.gradient, row, packs), task.targets[row], slope);
}

// l_r = log(sum_j exp(x_rj)),  loss_r = l_r - (1 - s) x_r,target - s mean_j(x_rj) + z l_r^2, then the
// gradient of weight_r loss_r over the logits, as in put_row_gradient. A block has one row.
template <typename T, int V>
__global__ void MJ_BOUNDS(kMost, 1) put_row_loss(LossWhole task) {
  __shared__ float chosen;
  const LossRule& rule = task.rule;
  const int64_t row = blockIdx.x;
  const int packs = static_cast<int>(rule.columns / V);
  const int64_t target = task.targets[row];
  Pack<T, V>* x = row_of<T, V>(task.logits, row, packs);
  const RunningSum found = sums_of(rule, x, packs);
  const float logsum = found.most + logf(found.sum);
  if (threadIdx.x == 0) chosen = chosen_of(rule, x, target);
  __syncthreads();  // before the first gradient takes its place
  if (threadIdx.x == 0) {
    const float loss = loss_of(rule, logsum, chosen, found.total);
    task.losses[row] = target == rule.ignored ? 0.0f : loss;
  }
  const RowSlope slope(rule, logsum, task.weights[row]);
  put_gradient(rule, static_cast<const Pack<T, V>*>(x), x, target, slope);
}

void check(const LossRule& rule) {
  MJ_CHECK(rule.rows >= 0, "rows must not be negative, got ", rule.rows);
  MJ_CHECK(rule.columns >= 1, "columns must be at least 1, got ", rule.columns);
}

template <typename T>
int threads_for(const LossRule& rule) {
  return loss_threads(rule.columns * static_cast<int64_t>(sizeof(T)));
}

}  // namespace

void loss_parts(const LossParts& task, Stream stream) {
  check(task.rule);
  if (task.rule.rows == 0) return;
  const auto run = [&]<typename N>(N) {
    using T = typename N::T;
    launch("loss_parts", add_row_parts<T, N::V>, {task.rule.rows}, threads_for<T>(task.rule), 0,
           stream, task);
  };
  with_numbers(task.rule.dtype, task.rule.columns, run, task.logits);
}

void loss_gradient(const LossGradient& task, Stream stream) {
  check(task.rule);
  if (task.rule.rows == 0) return;
  const auto run = [&]<typename N>(N) {
    using T = typename N::T;
    launch("loss_gradient", put_row_gradient<T, N::V>, {task.rule.rows}, threads_for<T>(task.rule),
           0, stream, task);
  };
  with_numbers(task.rule.dtype, task.rule.columns, run, task.x, task.gradient);
}

void loss_whole(const LossWhole& task, Stream stream) {
  check(task.rule);
  if (task.rule.rows == 0) return;
  const auto run = [&]<typename N>(N) {
    using T = typename N::T;
    launch("loss_whole", put_row_loss<T, N::V>, {task.rule.rows}, threads_for<T>(task.rule), 0,
           stream, task);
  };
  with_numbers(task.rule.dtype, task.rule.columns, run, task.logits);
}

}  // namespace mj
