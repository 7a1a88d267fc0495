// Random numbers by counter: the n-th are known without those before them; and what they drop.
#pragma once

#include "cuda/residual.h"

namespace mj {

struct Four {
  uint32_t at[4];
};

MJ_BOTH uint32_t high_product(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  return __umulhi(a, b);
#else
  return static_cast<uint32_t>(uint64_t{a} * b >> 32);
#endif
}

// Philox4x32-10. Source: Salmon et al. 2011, section 3.3, "Parallel random numbers: as easy as 1, 2, 3".
MJ_BOTH Four philox(Four counter, uint32_t key0, uint32_t key1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = high_product(0xD2511F53u, counter.at[0]);
    const uint32_t high1 = high_product(0xCD9E8D57u, counter.at[2]);
    const uint32_t low0 = 0xD2511F53u * counter.at[0];
    const uint32_t low1 = 0xCD9E8D57u * counter.at[2];
    counter = {{high1 ^ counter.at[1] ^ key0, low1, high0 ^ counter.at[3] ^ key1, low0}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Factors (0, or scale) of V numbers from place `first`, a multiple of V; V is 1, 4 or 8.
template <int V>
struct Kept {
  float at[V];

  // The word of number `begin + i` of a draw, by selections: an index would put the words to memory.
  static MJ_BOTH uint32_t word_of(const Four& bits, int begin, int i) {
    if constexpr (V == 8) return bits.at[i / 2];
    if constexpr (V == 4) return begin == 0 ? bits.at[i / 2] : bits.at[i / 2 + 2];
    const uint32_t low = begin / 2 % 2 == 0 ? bits.at[0] : bits.at[1];
    const uint32_t high = begin / 2 % 2 == 0 ? bits.at[2] : bits.at[3];
    return begin < 4 ? low : high;
  }

  MJ_BOTH Kept(const Dropout& rule, int64_t seed, int64_t first) {
    const uint64_t draw = static_cast<uint64_t>(first) / kOfDraw, key = static_cast<uint64_t>(seed);
    const Four bits = philox({{static_cast<uint32_t>(draw), static_cast<uint32_t>(draw >> 32), 0, 0}},
                             static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32));
    const int begin = static_cast<int>(first % kOfDraw);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int place = begin + i;
      const uint32_t word = word_of(bits, begin, i);
      const uint32_t own = place % 2 == 0 ? word & 0xffffu : word >> 16;
      at[i] = own < rule.kept ? rule.scale : 0.0f;
    }
  }
};

}  // namespace mj
