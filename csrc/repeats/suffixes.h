// Suffix arrays of bytes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mj {

// The starts of all suffixes of `text`, in the order of the suffixes; a suffix comes after those
// that it begins with. Linear in time; 4 bytes an item beside the result at most.
// Source: Nong, Zhang and Chan 2009, "Linear Suffix Array Construction by Almost Pure
// Induced-Sorting" (SA-IS). text.size() must be below 2^31 - 2.
std::vector<std::int32_t> suffix_array(std::span<const std::uint8_t> text);

}  // namespace mj
