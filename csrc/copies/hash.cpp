#include "copies/hash.h"

#include <array>
#include <bit>
#include <cstring>

namespace mj {
namespace {

static_assert(std::endian::native == std::endian::little, "hashes read words in little endian");

constexpr uint64_t kPrime1 = 0x9e3779b185ebca87ull;
constexpr uint64_t kPrime2 = 0xc2b2ae3d27d4eb4full;
constexpr uint64_t kPrime3 = 0x165667b19e3779f9ull;
constexpr uint64_t kPrime4 = 0x85ebca77c2b2ae63ull;
constexpr uint64_t kPrime5 = 0x27d4eb2f165667c5ull;

template <typename T>
T load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

uint64_t round64(uint64_t lane, uint64_t input) {
  return std::rotl(lane + input * kPrime2, 31) * kPrime1;
}

uint64_t merge64(uint64_t hash, uint64_t lane) {
  return (hash ^ round64(0, lane)) * kPrime1 + kPrime4;
}

// What is left behind the last 32 bytes, and the avalanche.
uint64_t finish64(uint64_t hash, const char* at, const char* end) {
  for (; at + 8 <= end; at += 8) {
    hash = std::rotl(hash ^ round64(0, load<uint64_t>(at)), 27) * kPrime1 + kPrime4;
  }
  if (at + 4 <= end) {
    hash = std::rotl(hash ^ (load<uint32_t>(at) * kPrime1), 23) * kPrime2 + kPrime3;
    at += 4;
  }
  for (; at < end; ++at) {
    hash = std::rotl(hash ^ (static_cast<uint8_t>(*at) * kPrime5), 11) * kPrime1;
  }
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

constexpr uint64_t kMurmur1 = 0x87c37b91114253d5ull;
constexpr uint64_t kMurmur2 = 0x4cf5ad432745937full;

uint64_t first_key(uint64_t word) { return std::rotl(word * kMurmur1, 31) * kMurmur2; }
uint64_t second_key(uint64_t word) { return std::rotl(word * kMurmur2, 33) * kMurmur1; }

uint64_t avalanche(uint64_t word) {
  word = (word ^ (word >> 33)) * 0xff51afd7ed558ccdull;
  word = (word ^ (word >> 33)) * 0xc4ceb9fe1a85ec53ull;
  return word ^ (word >> 33);
}

}  // namespace

uint64_t hash64(std::string_view bytes, uint64_t seed) {
  const char* at = bytes.data();
  const char* const end = at + bytes.size();
  uint64_t hash = seed + kPrime5;
  if (bytes.size() >= 32) {
    std::array<uint64_t, 4> lanes = {seed + kPrime1 + kPrime2, seed + kPrime2, seed,
                                     seed - kPrime1};
    for (; end - at >= 32; at += 32) {
      for (size_t i = 0; i < 4; ++i) lanes[i] = round64(lanes[i], load<uint64_t>(at + 8 * i));
    }
    hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) +
           std::rotl(lanes[3], 18);
    for (const uint64_t lane : lanes) hash = merge64(hash, lane);
  }
  return finish64(hash + bytes.size(), at, end);
}

std::pair<uint64_t, uint64_t> hash128(std::string_view bytes, uint32_t seed) {
  uint64_t first = seed;
  uint64_t second = seed;
  const char* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= 16; at += 16, left -= 16) {
    first ^= first_key(load<uint64_t>(at));
    first = (std::rotl(first, 27) + second) * 5 + 0x52dce729;
    second ^= second_key(load<uint64_t>(at + 8));
    second = (std::rotl(second, 31) + first) * 5 + 0x38495ab5;
  }
  std::array<char, 16> tail{};
  if (left) std::memcpy(tail.data(), at, left);
  second ^= second_key(load<uint64_t>(tail.data() + 8));
  first ^= first_key(load<uint64_t>(tail.data()));
  first ^= bytes.size();
  second ^= bytes.size();
  first += second;
  second += first;
  first = avalanche(first);
  second = avalanche(second);
  first += second;
  return {first, second + first};
}

}  // namespace mj
