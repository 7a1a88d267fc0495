// A set of keys in few bits, that sometimes holds more than was put in.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mj {

// Source: Bloom 1970; probes by double hashing: Kirsch and Mitzenmacher 2006.
class Bloom {
 public:
  // Sized so that `expected` keys leave at most `rate` false positives: -n ln p / (ln 2)^2 bits.
  Bloom(int64_t expected, double rate);

  // Add keys in order; present [keys]: 1 where it seemed to be there before.
  void add(std::span<const uint64_t> keys, std::span<uint8_t> present);

  int64_t bits() const { return static_cast<int64_t>(bits_); }
  int probes() const { return probes_; }

 private:
  uint64_t bits_;
  int probes_;
  std::vector<uint64_t> words_;
};

}  // namespace mj
