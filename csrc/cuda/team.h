// Threads that work on one row together: how many, and what they add up.
#pragma once

#include "cuda/device.h"

namespace mj {

// A block of `threads` is cut into teams of `team` (a power of two), each for one row.
struct Teams {
  int team, threads;
  int64_t blocks;

  constexpr int in_block() const { return threads / team; }
};

constexpr int kMostTeam = 512;

// Teams for rows of `packs` packs, where a thread holds up to `held` packs of its row in registers;
// what does not fit is read again. `least` threads make a block, so that short rows share one.
constexpr Teams teams_for(int64_t rows, int64_t packs, int held, int least) {
  int team = 1;
  while (team < kMostTeam && int64_t{team} * held < packs) team *= 2;
  const int threads = team > least ? team : least;
  const int64_t teams = threads / team;
  return {team, threads, (rows + teams - 1) / teams};
}

#if defined(__CUDACC__) || defined(MJ_EMULATED)

struct Sum {
  MJ_DEVICE float operator()(float a, float b) const { return a + b; }
};

struct Largest {
  MJ_DEVICE float operator()(float a, float b) const { return a > b ? a : b; }
};

struct Two {
  float first, second;
};

MJ_DEVICE Two from_lane_across(Two value, int step) {
  return {from_lane_across(value.first, step), from_lane_across(value.second, step)};
}

struct SumTwo {
  MJ_DEVICE Two operator()(Two a, Two b) const { return {a.first + b.first, a.second + b.second}; }
};

// `op` over the values of a team, to each of its threads, in an order that is always the same:
// lanes 16, 8, 4, 2, 1 apart, then warps one after the other. All threads of the block call it;
// `scratch` is shared memory, one value for each of 32 warps.
template <typename T, typename Op>
MJ_DEVICE T over_team(T value, int team, T* scratch, Op op) {
  for (int step = (team < 32 ? team : 32) / 2; step > 0; step /= 2) {
    value = op(value, from_lane_across(value, step));
  }
  if (team <= 32) return value;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread % 32 == 0) scratch[thread / 32] = value;
  __syncthreads();
  const int first = thread / team * (team / 32);
  value = scratch[first];
  for (int warp = 1; warp < team / 32; ++warp) value = op(value, scratch[first + warp]);
  __syncthreads();
  return value;
}

#endif

}  // namespace mj
