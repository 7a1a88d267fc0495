// blend_lanes.h for machines with AVX-512.
#include <limits>
#include <type_traits>

#include "index/blend_lanes.h"

#ifdef __x86_64__
#pragma GCC target("avx512f")
#endif

#include "index/blend_step.h"

namespace mj {

void advance_avx512(LaneState& state, int64_t steps, double* chosen_out) {
  advance_all<64, 2, 2>(state, steps, chosen_out);
}

}  // namespace mj
