#include "pack/paced.h"

#include <algorithm>
#include <utility>

#include "check.h"

namespace mj {
namespace {

// Source: Steele, Lea and Flood 2014, Fast Splittable Pseudorandom Number Generators, figure 10.
class SplitMix {
 public:
  explicit SplitMix(uint64_t seed) : state_(seed) {}

  // Any number below `count`, each as likely: multiply and reject (Lemire 2019, arXiv:1805.10941).
  uint64_t below(uint64_t count) {
    while (true) {
      const auto product = static_cast<unsigned __int128>(next()) * count;
      const auto low = static_cast<uint64_t>(product);
      if (low >= count || low >= -count % count) return static_cast<uint64_t>(product >> 64);
    }
  }

 private:
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

}  // namespace

void draw_paced(std::span<int64_t> values, std::span<const int64_t> horizons, uint64_t seed) {
  const size_t count = values.size();
  MJ_CHECK(horizons.size() == count, "horizons has ", horizons.size(), " numbers, values has ",
           count);
  SplitMix random(seed);
  int64_t before = 0;
  for (size_t t = 0; t < count; ++t) {
    MJ_CHECK(horizons[t] >= before, "horizons[", t, "] is ", horizons[t], ", below the ", before,
             " before it");
    before = horizons[t];
    const auto end = std::clamp(static_cast<size_t>(before), t + 1, count);
    std::swap(values[t], values[t + static_cast<size_t>(random.below(end - t))]);
  }
}

}  // namespace mj
