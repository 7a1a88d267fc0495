// Which source each sample of a blend comes from.
#pragma once

#include <cstdint>
#include <span>

namespace mj {

// Give each sample to the source furthest behind its share: the first of those with the largest
// weights[i] * max(sample, 1) - taken[i], in double precision.
// weights: [sources], adding up to 1.  source, number: [samples], written.
void blend(std::span<const double> weights, std::span<int16_t> source, std::span<int64_t> number,
           int threads);

// The same with sizes[i] / sum for weights, until sizes[i] samples were taken of each source i.
// source, number: [sum of sizes], written.
void blend_all(std::span<const int64_t> sizes, std::span<int16_t> source,
               std::span<int64_t> number);

}  // namespace mj
