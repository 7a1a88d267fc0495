#include "copies/minhash.h"

#include <algorithm>
#include <cstring>

#include "check.h"
#include "copies/hash.h"

namespace mj {
namespace {

constexpr size_t kPadded = 16;  // permutations are made up to a whole number of the widest vectors

using Vector16 = uint32_t __attribute__((vector_size(16)));
using Vector32 = uint32_t __attribute__((vector_size(32)));
using Vector64 = uint32_t __attribute__((vector_size(64)));

// What the permutations of some vectors are made of, and their minima so far.
struct Lanes {
  const uint32_t* scales;
  const uint32_t* shifts;
  uint32_t* minima;
};

// Lower the minima of some vectors by all shingles; they stay in registers.
template <typename Vector, size_t kVectors>
[[gnu::always_inline]] inline void lower_vectors(std::span<const uint64_t> shingles, Lanes lanes) {
  Vector scale[kVectors];
  Vector shift[kVectors];
  Vector least[kVectors];
  std::memcpy(scale, lanes.scales, sizeof scale);
  std::memcpy(shift, lanes.shifts, sizeof shift);
  std::memset(least, 0xff, sizeof least);
  for (const uint64_t wide : shingles) {
    const auto shingle = static_cast<uint32_t>(wide);
    for (size_t i = 0; i < kVectors; ++i) {
      Vector value = shingle * scale[i] + shift[i];
      value ^= value >> 15;
      least[i] = least[i] < value ? least[i] : value;
    }
  }
  std::memcpy(lanes.minima, least, sizeof least);
}

// Of `count` permutations, a multiple of kPadded.
template <typename Vector>
[[gnu::always_inline]] inline void lower_all(std::span<const uint64_t> shingles, Lanes lanes,
                                             size_t count) {
  constexpr size_t kEach = sizeof(Vector) / sizeof(uint32_t);
  constexpr size_t kSome = 4 * kEach;
  size_t first = 0;
  const auto from = [&] {
    return Lanes{lanes.scales + first, lanes.shifts + first, lanes.minima + first};
  };
  for (; count - first >= kSome; first += kSome) lower_vectors<Vector, 4>(shingles, from());
  const size_t left = (count - first) / kEach;
  if (left == 3) lower_vectors<Vector, 3>(shingles, from());
  if (left == 2) lower_vectors<Vector, 2>(shingles, from());
  if (left == 1) lower_vectors<Vector, 1>(shingles, from());
}

void lower_plain(std::span<const uint64_t> shingles, Lanes lanes, size_t count) {
  lower_all<Vector16>(shingles, lanes, count);
}

MJ_SSE41 void lower_sse41(std::span<const uint64_t> shingles, Lanes lanes, size_t count) {
  lower_all<Vector16>(shingles, lanes, count);
}

MJ_AVX2 void lower_avx2(std::span<const uint64_t> shingles, Lanes lanes, size_t count) {
  lower_all<Vector32>(shingles, lanes, count);
}

MJ_AVX512 void lower_avx512(std::span<const uint64_t> shingles, Lanes lanes, size_t count) {
  lower_all<Vector64>(shingles, lanes, count);
}

auto lower_on(Machine machine) {
  if (machine == Machine::avx512) return lower_avx512;
  if (machine == Machine::avx2) return lower_avx2;
  return machine == Machine::sse41 ? lower_sse41 : lower_plain;
}

}  // namespace

Permutations::Permutations(int count, uint64_t seed, Machine machine)
    : count_(count), machine_(machine) {
  MJ_CHECK(count >= 1, "permutations must be at least 1, got ", count);
  const size_t padded = (static_cast<size_t>(count) + kPadded - 1) / kPadded * kPadded;
  for (size_t i = 0; i < padded; ++i) {
    scales_.push_back(static_cast<uint32_t>(next_random(seed)) | 1u);
    shifts_.push_back(static_cast<uint32_t>(next_random(seed)));
  }
}

void Permutations::least(std::span<const uint64_t> shingles, std::span<uint32_t> minima) const {
  std::vector<uint32_t> padded(scales_.size());
  const auto lower = lower_on(machine_);
  lower(shingles, {scales_.data(), shifts_.data(), padded.data()}, padded.size());
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
