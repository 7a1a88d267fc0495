#include "copies/hash.h"

#include <array>
#include <bit>
#include <cstring>

namespace mj {
namespace {

static_assert(std::endian::native == std::endian::little, "hashes read words in little endian");

uint64_t load(const char* at) {
  uint64_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
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

std::pair<uint64_t, uint64_t> hash128(std::string_view bytes, uint32_t seed) {
  uint64_t first = seed;
  uint64_t second = seed;
  const char* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= 16; at += 16, left -= 16) {
    first ^= first_key(load(at));
    first = (std::rotl(first, 27) + second) * 5 + 0x52dce729;
    second ^= second_key(load(at + 8));
    second = (std::rotl(second, 31) + first) * 5 + 0x38495ab5;
  }
  std::array<char, 16> tail{};
  if (left) std::memcpy(tail.data(), at, left);
  second ^= second_key(load(tail.data() + 8));
  first ^= first_key(load(tail.data()));
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
