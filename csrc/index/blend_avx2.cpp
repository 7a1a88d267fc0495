// blend_lanes.h for machines with AVX2.
#include <limits>
#include <type_traits>

#include "index/blend_lanes.h"

#ifdef __x86_64__
#pragma GCC target("avx2")
#endif

#include "index/blend_step.h"

namespace mj {

void advance_avx2(LaneState& state, int64_t steps, double* chosen_out) {
  advance_all<32, 4, 1>(state, steps, chosen_out);
}

}  // namespace mj
