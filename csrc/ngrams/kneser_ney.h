// Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998, section 3.1; computed in the
// order of Heafield et al. 2013), in memory.
//
// Word numbers: 0 unknown, 1 begin of a line, 2 end of a line, words of the vocabulary from 3.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace mj {

constexpr uint32_t UNKNOWN = 0, BEGIN = 1, END = 2, FIRST_WORD = 3;
constexpr int MAX_ORDER = 5;
constexpr int WORD_BITS = 25;  // five of them in 128 bits

struct Discounts {
  std::array<double, 3> of{};  // counted once, twice, three times and more
  bool guessed = false;        // the counts were too few to estimate them
};

// A trained model: a dense array for single words, a table for each longer n-gram (tables.h).
struct GramModel {
  std::vector<float> singles;                // [vocabulary, 2]: log10 p, log10 back-off
  std::vector<std::vector<uint64_t>> tables;  // of 2..order words: flat slots
  std::vector<uint64_t> counts;              // n-grams by order
  std::vector<Discounts> discounts;          // by order
};

// Train on lines laid end to end, each ended by END.
GramModel train_grams(std::span<const uint32_t> words, uint32_t vocabulary, int order, int threads);

}  // namespace mj
