#include "index/shuffle.h"

#include <algorithm>
#include <bit>

#include "check.h"

namespace mj {
namespace {

constexpr size_t kShift = 397;
constexpr size_t kAhead = 256;

uint32_t twist(uint32_t high, uint32_t low) {
  const uint32_t mixed = (high & 0x80000000u) | (low & 0x7fffffffu);
  return (mixed >> 1) ^ ((mixed & 1u) ? 0x9908b0dfu : 0u);
}

uint32_t temper(uint32_t value) {
  value ^= value >> 11;
  value ^= (value << 7) & 0x9d2c5680u;
  value ^= (value << 15) & 0xefc60000u;
  return value ^ (value >> 18);
}

// Places drawn for the tops `top`, `top` - 1, ...
struct Draws {
  std::array<uint32_t, kAhead> places;
  size_t count = 0;
};

// Draw up to kAhead places, from `top` downwards, and start loading what they name.
template <typename T>
void draw(Mersenne& random, std::span<T> values, uint32_t& top, Draws& draws) {
  size_t count = 0;
  while (count < kAhead && top >= 1) {
    const uint32_t mask = ~0u >> std::countl_zero(top);
    const uint32_t lowest = (mask >> 1) + 1;  // tops in [lowest, mask] share this mask
    const auto room = static_cast<uint32_t>(kAhead - count);
    const uint32_t stop = top >= room ? std::max(lowest, top - room + 1) : lowest;
    while (top >= stop) {
      const uint32_t place = random.next() & mask;
      draws.places[count] = place;
      // a rejected place may lie beyond the end: a prefetch of it does nothing
      __builtin_prefetch(values.data() + place, 1);
      const uint32_t accepted = place <= top;
      count += accepted;
      top -= accepted;
    }
  }
  draws.count = count;
}

}  // namespace

Mersenne::Mersenne(uint32_t seed) {
  state_[0] = seed;
  for (uint32_t i = 1; i < kWords; ++i) {
    state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
  }
}

void Mersenne::refill() {
  constexpr size_t wrap = kWords - kShift;
  for (size_t i = 0; i < wrap; ++i) {
    state_[i] = state_[i + kShift] ^ twist(state_[i], state_[i + 1]);
  }
  for (size_t i = wrap; i < kWords - 1; ++i) {
    state_[i] = state_[i - wrap] ^ twist(state_[i], state_[i + 1]);
  }
  state_[kWords - 1] = state_[kShift - 1] ^ twist(state_[kWords - 1], state_[0]);
  std::transform(state_.begin(), state_.end(), draws_.begin(), temper);
  place_ = 0;
}

template <typename T>
void shuffle(Mersenne& random, std::span<T> values) {
  MJ_CHECK(values.size() <= (1ull << 32), "values has ", values.size(),
           " items, at most 4294967296 can be shuffled");
  if (values.size() < 2) return;
  auto top = static_cast<uint32_t>(values.size() - 1);
  size_t swapped = values.size() - 1;
  std::array<Draws, 2> buffers;
  draw(random, values, top, buffers[0]);
  for (size_t now = 0; buffers[now].count > 0; now ^= 1) {
    draw(random, values, top, buffers[now ^ 1]);
    for (size_t i = 0; i < buffers[now].count; ++i) {
      std::swap(values[swapped], values[buffers[now].places[i]]);
      --swapped;
    }
  }
}

template void shuffle<int32_t>(Mersenne&, std::span<int32_t>);
template void shuffle<uint32_t>(Mersenne&, std::span<uint32_t>);
template void shuffle<int64_t>(Mersenne&, std::span<int64_t>);

}  // namespace mj
