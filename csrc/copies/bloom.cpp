#include "copies/bloom.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "check.h"
#include "copies/hash.h"

namespace mj {
namespace {

constexpr size_t kAhead = 16;  // keys whose first word is loaded while others are looked up

// A number below `bits`, from a random one.  Source: Lemire 2019, section 4.
uint64_t below(uint64_t random, uint64_t bits) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(random) * bits) >> 64);
}

}  // namespace

Bloom::Bloom(int64_t expected, double rate) {
  MJ_CHECK(expected >= 1, "expected must be at least 1, got ", expected);
  MJ_CHECK(rate > 0 && rate < 1, "rate must be between 0 and 1, got ", rate);
  const double n = static_cast<double>(expected);
  const double bits = std::ceil(-n * std::log(rate) / (std::numbers::ln2 * std::numbers::ln2));
  bits_ = std::max<uint64_t>(64, static_cast<uint64_t>(bits));
  probes_ = std::max(1, static_cast<int>(std::lround(bits / n * std::numbers::ln2)));
  words_.resize((bits_ + 63) / 64);
}

void Bloom::add(std::span<const uint64_t> keys, std::span<uint8_t> present) {
  MJ_CHECK(present.size() == keys.size(), "present must hold ", keys.size(), " values, got ",
           present.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    if (i + kAhead < keys.size()) {
      const uint64_t later = fold(keys[i + kAhead], 0x9e3779b97f4a7c15ull);
      __builtin_prefetch(words_.data() + below(later, bits_) / 64, 1);
    }
    uint64_t place = fold(keys[i], 0x9e3779b97f4a7c15ull);
    const uint64_t step = fold(keys[i] ^ 0xd6e8feb86659fd93ull, 0xa0761d6478bd642full) | 1;
    bool found = true;
    for (int probe = 0; probe < probes_; ++probe, place += step) {
      const uint64_t bit = below(place, bits_);
      uint64_t& word = words_[bit / 64];
      found &= (word >> (bit % 64)) & 1;
      word |= 1ull << (bit % 64);
    }
    present[i] = found;
  }
}

}  // namespace mj
