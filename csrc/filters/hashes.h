// Polynomial hashes modulo 2^61 - 1: hashes of neighbours join into that of both.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace mj {

constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;
constexpr uint64_t kBase = 1'442'695'040'888'963'407 % kPrime;      // of characters in a word
constexpr uint64_t kWordBase = 1'181'783'497'276'652'981 % kPrime;  // of words in a run

inline uint64_t reduced(uint64_t x) {
  x = (x & kPrime) + (x >> 61);
  return x >= kPrime ? x - kPrime : x;
}
inline uint64_t times(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return reduced((static_cast<uint64_t>(product) & kPrime) + static_cast<uint64_t>(product >> 61));
}
inline uint64_t hash_of(std::u32string_view text) {
  uint64_t hash = 0;
  for (const char32_t c : text) hash = reduced(times(hash, kBase) + c + 1);
  return hash;
}

// The hash of a text without its beginning; `power` is kBase to the length of the rest.
inline uint64_t without(uint64_t whole, uint64_t beginning, uint64_t power) {
  return reduced(whole + kPrime - times(beginning, power));
}

// kBase to any power, made as they are asked for.
class Powers {
 public:
  uint64_t operator[](size_t power) {
    while (powers_.size() <= power) powers_.push_back(times(powers_.back(), kBase));
    return powers_[power];
  }

 private:
  std::vector<uint64_t> powers_ = {1};
};

// Numbers seen, each with how often; open addressing, made for one use.
class Tally {
 public:
  explicit Tally(size_t most) {
    size_t size = 16;
    while (size < most * 2) size *= 2;
    slots_.resize(size);
  }
  // How often the key was counted, with this time.
  uint32_t count(uint64_t key) {
    const size_t at = place(key);
    slots_[at].key = key;
    return ++slots_[at].times;
  }
  uint32_t times(uint64_t key) const { return slots_[place(key)].times; }

 private:
  struct Slot {
    uint64_t key = 0;
    uint32_t times = 0;
  };
  size_t place(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    size_t at = (key * 0x9E3779B97F4A7C15u >> 20) & mask;
    while (slots_[at].times != 0 && slots_[at].key != key) at = (at + 1) & mask;
    return at;
  }

  std::vector<Slot> slots_;
};

}  // namespace mj
