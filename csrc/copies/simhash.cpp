#include "copies/simhash.h"

#include <array>

#include "copies/hash.h"

namespace mj {
namespace {

#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
void count_bits(const uint64_t* shingles, size_t size, uint64_t* ones) {
  for (size_t at = 0; at < size; ++at) {
    const uint64_t shingle = shingles[at];
    for (unsigned i = 0; i < 64; ++i) ones[i] += (shingle >> i) & 1;
  }
}

}  // namespace

uint64_t simhash(std::span<const uint64_t> shingles) {
  std::array<uint64_t, 64> ones{};
  count_bits(shingles.data(), shingles.size(), ones.data());
  uint64_t value = 0;
  for (unsigned i = 0; i < 64; ++i) {
    value |= static_cast<uint64_t>(2 * ones[i] > shingles.size()) << i;
  }
  return value;
}

void masked_keys(uint64_t value, std::span<const uint64_t> masks, std::span<uint64_t> keys) {
  for (size_t i = 0; i < masks.size(); ++i) {
    const uint64_t part = fold((value & masks[i]) ^ 0xa0761d6478bd642full, masks[i] | 1);
    keys[i] = fold(part ^ (i + 1), 0xe7037ed1a0b428dbull);
  }
}

}  // namespace mj
