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

#if defined(__x86_64__)
#define MJ_EVERY_MACHINE __attribute__((target_clones("avx512f", "avx2", "sse4.1", "default")))
#else
#define MJ_EVERY_MACHINE
#endif

// Lower `minima` of some vectors of permutations by all shingles.
template <size_t kVectors>
[[gnu::always_inline]] inline void lower_vectors(std::span<const uint64_t> shingles,
                                                 const uint32_t* scales, const uint32_t* shifts,
                                                 uint32_t* minima) {
  Vector scale[kVectors];
  Vector shift[kVectors];
  Vector least[kVectors];
  std::memcpy(scale, scales, sizeof scale);
  std::memcpy(shift, shifts, sizeof shift);
  std::memset(least, 0xff, sizeof least);
  for (const uint64_t wide : shingles) {
    const auto shingle = static_cast<uint32_t>(wide);
    for (size_t i = 0; i < kVectors; ++i) {
      Vector value = shingle * scale[i] + shift[i];
      value ^= value >> 15;
      least[i] = least[i] < value ? least[i] : value;
    }
  }
  std::memcpy(minima, least, sizeof least);
}

MJ_EVERY_MACHINE
void lower(std::span<const uint64_t> shingles, const uint32_t* scales, const uint32_t* shifts,
           uint32_t* minima, size_t vectors) {
  for (; vectors >= kAtOnce; vectors -= kAtOnce) {
    lower_vectors<kAtOnce>(shingles, scales, shifts, minima);
    scales += kAtOnce * kLanes;
    shifts += kAtOnce * kLanes;
    minima += kAtOnce * kLanes;
  }
  if (vectors == 3) lower_vectors<3>(shingles, scales, shifts, minima);
  if (vectors == 2) lower_vectors<2>(shingles, scales, shifts, minima);
  if (vectors == 1) lower_vectors<1>(shingles, scales, shifts, minima);
}

}  // namespace

Permutations::Permutations(int count, uint64_t seed) : count_(count) {
  MJ_CHECK(count >= 1, "permutations must be at least 1, got ", count);
  const size_t padded = (static_cast<size_t>(count) + kLanes - 1) / kLanes * kLanes;
  for (size_t i = 0; i < padded; ++i) {
    scales_.push_back(static_cast<uint32_t>(next_random(seed)) | 1u);
    shifts_.push_back(static_cast<uint32_t>(next_random(seed)));
  }
}

void Permutations::least(std::span<const uint64_t> shingles, std::span<uint32_t> minima) const {
  std::vector<uint32_t> padded(scales_.size());
  lower(shingles, scales_.data(), shifts_.data(), padded.data(), padded.size() / kLanes);
  std::copy(padded.begin(), padded.begin() + count_, minima.begin());
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
