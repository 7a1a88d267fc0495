// Drawing without replacement from a pool that grows.
#pragma once

#include <cstdint>
#include <span>

namespace mj {

// Reorder `values` in place: the t-th drawn is any of values[t] .. values[horizons[t] - 1] as they
// then lie, each as likely.  With values from easy to hard, nothing beyond the horizon is drawn yet,
// and everything is drawn once.
//
// horizons: [values], never falling; values[t] itself is always within reach.
// seed: of splitmix64; the draws are the same on every machine.
// Source: Fisher and Yates 1938, with the upper end moving; horizons after Platanios et al. 2019,
// Competence-based Curriculum Learning, section 2, arXiv:1903.09848.
void draw_paced(std::span<int64_t> values, std::span<const int64_t> horizons, uint64_t seed);

}  // namespace mj
