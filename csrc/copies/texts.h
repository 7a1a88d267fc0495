// What is made of many texts at once, in threads.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "copies/minhash.h"
#include "copies/shingles.h"
#include "copies/spans.h"

namespace mj {

using Texts = std::span<const std::string_view>;

struct MinhashOut {
  std::vector<uint64_t> keys;       // [texts, bands]
  std::vector<uint8_t> signatures;  // [texts, bands * rows], lower 8 bits of each minimum
  std::vector<int64_t> shingles;    // [texts], 0: the text has no letter, its keys mean nothing
};

MinhashOut minhash_texts(Texts texts, const Shingler& shingler, const Permutations& permutations,
                         int bands, int rows, int threads);

struct SimhashOut {
  std::vector<uint64_t> values;  // [texts]
  std::vector<uint64_t> keys;    // [texts, masks]
  std::vector<int64_t> shingles;
};

SimhashOut simhash_texts(Texts texts, const Shingler& shingler, std::span<const uint64_t> masks,
                         int threads);

struct SpansOut {
  std::vector<uint64_t> hashes;  // [spans, 2]
  std::vector<int64_t> places;   // [spans, 2], start and end in bytes
  std::vector<int64_t> ends;     // [texts], where each text's spans end among all
};

SpansOut span_texts(Texts texts, const Shingler& shingler, SpanKind kind, size_t least,
                    int threads);

// hashes [texts, 2]: of the letters of each text; lengths [texts]: their bytes.
struct HashesOut {
  std::vector<uint64_t> hashes;
  std::vector<int64_t> lengths;
};

HashesOut hash_texts(Texts texts, const Shingler& shingler, int threads);

}  // namespace mj
