#include "copies/minhash.h"

#include <algorithm>
#include <cstring>

#include "check.h"
#include "copies/hash.h"

namespace mj {
namespace {

constexpr size_t kLanes = 16;
constexpr size_t kAtOnce = 4;  // vectors of permutations whose minima stay in registers
using Vector = uint32_t __attribute__((vector_size(kLanes * 4)));

#define MJ_EVERY_MACHINE __attribute__((target_clones("avx512f", "avx2", "sse4.1", "default")))

// Lower `minima` of kAtOnce vectors of permutations by all shingles.
MJ_EVERY_MACHINE
void lower(const uint64_t* shingles, size_t size, const uint32_t* scales, const uint32_t* shifts,
           uint32_t* minima) {
  Vector scale[kAtOnce];
  Vector shift[kAtOnce];
  Vector least[kAtOnce];
  std::memcpy(scale, scales, sizeof scale);
  std::memcpy(shift, shifts, sizeof shift);
  std::memcpy(least, minima, sizeof least);
  for (size_t at = 0; at < size; ++at) {
    const auto shingle = static_cast<uint32_t>(shingles[at]);
    for (size_t i = 0; i < kAtOnce; ++i) {
      Vector value = shingle * scale[i] + shift[i];
      value ^= value >> 15;
      least[i] = least[i] < value ? least[i] : value;
    }
  }
  std::memcpy(minima, least, sizeof least);
}

}  // namespace

Permutations::Permutations(int count, uint64_t seed) : count_(count) {
  MJ_CHECK(count >= 1, "permutations must be at least 1, got ", count);
  const size_t run = kLanes * kAtOnce;
  const size_t padded = (static_cast<size_t>(count) + run - 1) / run * run;
  for (size_t i = 0; i < padded; ++i) {
    scales_.push_back(static_cast<uint32_t>(next_random(seed)) | 1u);
    shifts_.push_back(static_cast<uint32_t>(next_random(seed)));
  }
}

void Permutations::least(std::span<const uint64_t> shingles, std::span<uint32_t> minima) const {
  constexpr size_t run = kLanes * kAtOnce;
  uint32_t values[run];
  for (size_t first = 0; first < minima.size(); first += run) {
    std::fill(values, values + run, ~0u);
    lower(shingles.data(), shingles.size(), scales_.data() + first, shifts_.data() + first, values);
    std::copy(values, values + std::min(run, minima.size() - first), minima.data() + first);
  }
}

void band_keys(std::span<const uint32_t> minima, int rows, std::span<uint64_t> keys) {
  const auto height = static_cast<size_t>(rows);
  for (size_t band = 0; band < keys.size(); ++band) {
    uint64_t key = band + 1;
    for (size_t row = 0; row < height; ++row) {
      key = fold(key ^ minima[band * height + row], 0x9e3779b97f4a7c15ull) + row;
    }
    keys[band] = fold(key ^ 0x2545f4914f6cdd1dull, 0xd6e8feb86659fd93ull);
  }
}

}  // namespace mj
