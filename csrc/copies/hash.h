// A hash of bytes, MurmurHash3's x64 128, and mixing of 64-bit words.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>

namespace mj {

// MurmurHash3_x64_128: (first, second) word.  Source: Appleby, SMHasher, public domain.
std::pair<uint64_t, uint64_t> hash128(std::string_view bytes, uint32_t seed);

// The halves of the 128-bit product, folded: one multiplication that stirs all 64 bits.
inline uint64_t fold(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// One step of SplitMix64: a stream of random words.  Source: Steele et al. 2014.
inline uint64_t next_random(uint64_t& state) {
  state += 0x9e3779b97f4a7c15ull;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

}  // namespace mj
