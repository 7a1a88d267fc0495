// Which source each sample of a blend comes from.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mj {

// For which machines the code is that does the work; the results are the same.
enum class Machine { plain, avx2, avx512 };
bool runs_here(Machine machine);
Machine fastest_here();

// Each sample is given to the source furthest behind its share: the first of those with the largest
// weights[i] * max(sample, 1) - taken[i], in double precision.
struct BlendRule {
  std::span<const double> weights;  // [sources], positive, adding up to 1
  std::span<const int64_t> limits;  // [sources], samples that a source has; empty for no end
};

using Counts = std::vector<int64_t>;  // [sources], samples taken of each

// Where samples [0, size) go; empty spans for nowhere.
struct BlendOutput {
  std::span<int16_t> source;  // [size]
  std::span<int64_t> number;  // [size], which of that source's samples
  std::span<int64_t> counts;  // [blocks + 1][sources], before each block of samples, and at the end
};

constexpr int64_t kBlendBlock = 1 << 14;  // samples

// How many blocks hold `size` samples.
constexpr int64_t blend_blocks(int64_t size) { return (size + kBlendBlock - 1) / kBlendBlock; }

// All of a blend, from its start.
void blend(const BlendRule& rule, int64_t size, int threads, Machine machine, BlendOutput output);

// Samples [first, first + source.size()) of a blend of which `taken` were taken before.
void blend_part(const BlendRule& rule, Counts taken, int64_t first, std::span<int16_t> source,
                std::span<int64_t> number);

}  // namespace mj
