// Blends many stretches at a time, one in each lane of the processor's vectors.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mj {

// The state of kLanes stretches of one blend, advanced together.  L is kLanes.
struct LaneState {
  size_t sources;         // an even number; one that only fills up has a share of 0 and is spent
  const double* weights;  // [sources]
  const double* limits;   // [sources], after how many samples a source is spent; null for never
  double* given;          // [sources][L], samples taken, but for the last one
  double* sample;         // [L], the number of the next one
  double* chosen;         // [L], source of the last one, which is not in `given` yet
};

constexpr size_t kLanes = 16;
constexpr double kNone = -1.0;  // in `chosen`: no sample is outstanding

// Take `steps` samples in every lane; their sources go to chosen_out [steps][L] unless it is null.
// Each of them gives the same, on machines that have what it needs.
using AdvanceLanes = void (*)(LaneState& state, int64_t steps, double* chosen_out);
void advance_plain(LaneState& state, int64_t steps, double* chosen_out);
void advance_avx2(LaneState& state, int64_t steps, double* chosen_out);
void advance_avx512(LaneState& state, int64_t steps, double* chosen_out);

}  // namespace mj
