// blend_lanes.h for every machine.
#include "index/blend_step.h"

namespace mj {

void advance_plain(LaneState& state, int64_t steps, double* chosen_out) {
  advance_all<16, 8, 1>(state, steps, chosen_out);
}

}  // namespace mj
