#include "copies/simhash.h"

#include <array>

#include "copies/hash.h"

namespace mj {
namespace {

[[gnu::always_inline]] inline void count_all(std::span<const uint64_t> shingles, uint64_t* ones) {
  for (const uint64_t shingle : shingles) {
    for (unsigned i = 0; i < 64; ++i) ones[i] += (shingle >> i) & 1;
  }
}

void count_plain(std::span<const uint64_t> shingles, uint64_t* ones) { count_all(shingles, ones); }

MJ_AVX2 void count_avx2(std::span<const uint64_t> shingles, uint64_t* ones) {
  count_all(shingles, ones);
}

MJ_AVX512 void count_avx512(std::span<const uint64_t> shingles, uint64_t* ones) {
  count_all(shingles, ones);
}

auto count_on(Machine machine) {
  if (machine == Machine::avx512) return count_avx512;
  return machine == Machine::avx2 ? count_avx2 : count_plain;
}

}  // namespace

uint64_t simhash(std::span<const uint64_t> shingles, Machine machine) {
  std::array<uint64_t, 64> ones{};
  count_on(machine)(shingles, ones.data());
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
