// Probabilities of lines by a back-off model of n-grams.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "ngrams/kneser_ney.h"
#include "ngrams/tables.h"
#include "ngrams/words.h"

namespace mj {

// Base 10 logarithm of the probability of a line, and its words with the end of the line.
struct LineScore {
  double log_p = 0;
  int64_t words = 0;
};

class GramScorer {
 public:
  // singles [vocabulary, 2]; tables of 2, 3, ... words; unknown_words share the probability of
  // the unknown word evenly.
  GramScorer(std::span<const float> singles, std::vector<Table> tables, double unknown_words);

  int order() const { return static_cast<int>(tables_.size()) + 1; }

  // Lines laid end to end, each ended by END.
  std::vector<LineScore> score(std::span<const uint32_t> words) const;
  // log10 p of each word after those before it in its line.
  std::vector<float> score_words(std::span<const uint32_t> words) const;

 private:
  // What is known of the words before: hashes and back-off weights of the last 1, 2, ... of them.
  struct State {
    std::array<uint32_t, MAX_ORDER> words{};  // the latest first
    int size = 0;
    std::array<float, MAX_ORDER> back_off{};
    int known = 0;  // longest context that the model has
  };

  State begin() const;
  float step(State& state, uint32_t word) const;

  std::span<const float> singles_;
  std::vector<Table> tables_;
  float unknown_share_;
};

// Number each word of a text by the vocabulary's table: UNKNOWN for others, END for LINE_END.
std::vector<uint32_t> number_words(std::span<const uint64_t> hashes, const Table& vocabulary);

}  // namespace mj
