// MinHash: of each random permutation of all shingles, the least one that a text has.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "copies/machines.h"

namespace mj {

// Permutations x -> scale * x + shift mod 2^32 (scale odd), top half stirred into the lower.
// Source: Broder 1997; linear permutations: Bohman, Cooper, Frieze 2000.
class Permutations {
 public:
  Permutations(int count, uint64_t seed, Machine machine);

  int count() const { return count_; }

  // minima [count]: of each permutation the least value of the lower halves of the shingles.
  void least(std::span<const uint64_t> shingles, std::span<uint32_t> minima) const;

 private:
  int count_;
  Machine machine_;
  std::vector<uint32_t> scales_;  // padded to whole vectors
  std::vector<uint32_t> shifts_;
};

// keys [bands]: a hash of each run of `rows` minima, different from band to band.
void band_keys(std::span<const uint32_t> minima, int rows, std::span<uint64_t> keys);

}  // namespace mj
