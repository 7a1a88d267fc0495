// SimHash: 64 bits of a text, of which near texts differ in few.
#pragma once

#include <cstdint>
#include <span>

#include "copies/machines.h"

namespace mj {

// Bit i is set when over half of the shingles have it set.  Source: Charikar 2002.
uint64_t simhash(std::span<const uint64_t> shingles, Machine machine);

// keys [masks]: of each mask a hash of the bits it covers; two values that differ in at most k bits
// share one when the masks cover all choices of blocks but k.  Source: Manku et al. 2007, section 3.
void masked_keys(uint64_t value, std::span<const uint64_t> masks, std::span<uint64_t> keys);

}  // namespace mj
