// The step of blend_lanes.h; each file that includes it compiles it for other machines.
// No function here may be seen by other files: the linker would keep one for all machines.
#pragma once

#include <limits>
#include <type_traits>

#include "index/blend_lanes.h"

namespace mj {
namespace {

template <int Bytes>
struct VectorOf {
  typedef double Type __attribute__((vector_size(Bytes), may_alias));
};

// `Parts` vectors of lanes, from `lane` on.  Source i is behind by
// weights[i] * max(sample, 1) - given[i]; the first of the most behind is chosen.  With two
// `Halves` of the sources, they are gone through side by side: neither waits for the comparisons of
// the other, for which a machine needs many registers.
template <int Bytes, size_t Parts, size_t Halves, bool Limited>
void advance_some(LaneState& state, size_t lane, int64_t steps, double* chosen_out) {
  using Vector = typename VectorOf<Bytes>::Type;
  constexpr size_t row = kLanes * sizeof(double) / Bytes;  // vectors of a source
  const Vector zero = {};
  const Vector one = 1.0 - zero;
  const Vector infinity = std::numeric_limits<double>::infinity() - zero;
  const size_t half = state.sources / Halves;
  auto* const samples = reinterpret_cast<Vector*>(state.sample + lane);
  auto* const choices = reinterpret_cast<Vector*>(state.chosen + lane);
  auto* const given = reinterpret_cast<Vector*>(state.given + lane);
  auto* out = reinterpret_cast<Vector*>(chosen_out + (chosen_out == nullptr ? 0 : lane));
  Vector sample[Parts], chosen[Parts];
  for (size_t p = 0; p < Parts; ++p) sample[p] = samples[p], chosen[p] = choices[p];
  for (int64_t step = 0; step < steps; ++step) {
    Vector position[Parts], most[Halves][Parts], best[Halves][Parts];
    for (size_t p = 0; p < Parts; ++p) {
      position[p] = sample[p] > one ? sample[p] : one;
      sample[p] += one;
      for (size_t h = 0; h < Halves; ++h) most[h][p] = -infinity, best[h][p] = zero;
    }
    for (size_t low = 0; low < half; ++low) {
      for (size_t h = 0; h < Halves; ++h) {
        const size_t i = low + h * half;
        const Vector place = static_cast<double>(i) - zero;
        const Vector weight = state.weights[i] - zero;
        for (size_t p = 0; p < Parts; ++p) {
          Vector now = given[i * row + p];
          now = chosen[p] == place ? now + one : now;
          if constexpr (Limited) now = now == state.limits[i] ? infinity : now;
          given[i * row + p] = now;
          const Vector behind = weight * position[p] - now;
          const auto more = behind > most[h][p];
          most[h][p] = more ? behind : most[h][p];
          best[h][p] = more ? place : best[h][p];
        }
      }
    }
    for (size_t p = 0; p < Parts; ++p) {
      chosen[p] = best[0][p];
      if constexpr (Halves == 2) chosen[p] = most[1][p] > most[0][p] ? best[1][p] : chosen[p];
      if (chosen_out != nullptr) out[p] = chosen[p];
    }
    out += row;
  }
  for (size_t p = 0; p < Parts; ++p) samples[p] = sample[p], choices[p] = chosen[p];
}

template <int Bytes, size_t Parts, size_t Halves>
void advance_all(LaneState& state, int64_t steps, double* chosen_out) {
  for (size_t lane = 0; lane < kLanes; lane += Parts * Bytes / sizeof(double)) {
    if (state.limits == nullptr) {
      advance_some<Bytes, Parts, Halves, false>(state, lane, steps, chosen_out);
    } else {
      advance_some<Bytes, Parts, Halves, true>(state, lane, steps, chosen_out);
    }
  }
}

}  // namespace
}  // namespace mj
