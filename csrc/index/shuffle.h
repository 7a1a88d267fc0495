// The shuffle of numpy.random.RandomState, bit for bit, several times faster.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace mj {

// MT19937 seeded as numpy seeds RandomState with one integer.
// Source: Matsumoto and Nishimura 1998, ACM TOMACS 8(1); seeding of the 2002 version.
class Mersenne {
 public:
  explicit Mersenne(uint32_t seed);

  uint32_t next() {
    if (place_ == kWords) refill();
    return draws_[place_++];
  }

 private:
  static constexpr size_t kWords = 624;

  void refill();

  std::array<uint32_t, kWords> state_;
  std::array<uint32_t, kWords> draws_;  // the state as it is handed out
  size_t place_ = kWords;               // of the next one in draws_
};

// Fisher-Yates from the top, each place drawn by masked rejection.
// T is int32_t, uint32_t or int64_t; at most 2^32 values.
template <typename T>
void shuffle(Mersenne& random, std::span<T> values);

}  // namespace mj
