#include "ngrams/gram_scorer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "check.h"

namespace mj {

GramScorer::GramScorer(std::span<const float> singles, std::vector<Table> tables,
                       double unknown_words)
    : singles_(singles),
      tables_(std::move(tables)),
      unknown_share_(static_cast<float>(std::log10(std::max(unknown_words, 1.0)))) {
  MJ_CHECK(singles.size() >= 2 * FIRST_WORD && singles.size() % 2 == 0,
           "singles must be [vocabulary, 2], got ", singles.size(), " items");
  MJ_CHECK(tables_.size() < MAX_ORDER, "order must be at most 5, got ", tables_.size() + 1);
}

GramScorer::State GramScorer::begin() const {
  State state;
  state.words[0] = BEGIN;
  state.size = 1;
  state.known = 1;
  state.back_off[0] = singles_[2 * BEGIN + 1];
  return state;
}

float GramScorer::step(State& state, uint32_t word) const {
  MJ_CHECK(word < singles_.size() / 2, "words must be below ", singles_.size() / 2, ", found ",
           word);
  const int longest = std::min(state.size, order() - 1);
  std::array<uint64_t, MAX_ORDER> hashes;
  hashes[0] = extend(0, word);
  for (int n = 0; n < longest; ++n) {
    hashes[static_cast<size_t>(n + 1)] =
        extend(hashes[static_cast<size_t>(n)], state.words[static_cast<size_t>(n)]);
    tables_[static_cast<size_t>(n)].prefetch(hashes[static_cast<size_t>(n + 1)]);
  }
  float log_p = singles_[2 * word];
  std::array<float, MAX_ORDER> back_off{};
  back_off[0] = singles_[2 * word + 1];
  int matched = 1;
  for (; matched <= longest; ++matched) {
    const auto at = static_cast<size_t>(matched);
    const uint64_t* found = tables_[at - 1].find(hashes[at]);
    if (!found) break;
    const auto weight = std::bit_cast<Weight>(*found);
    log_p = weight.log_p;
    back_off[at] = weight.back_off;
  }
  for (int n = matched; n <= state.known; ++n) log_p += state.back_off[static_cast<size_t>(n - 1)];
  if (word == UNKNOWN) log_p -= unknown_share_;
  std::copy_backward(state.words.begin(), state.words.end() - 1, state.words.end());
  state.words[0] = word;
  state.size = std::min(state.size + 1, order() - 1);
  state.back_off = back_off;
  state.known = std::min(matched, order() - 1);
  return log_p;
}

std::vector<LineScore> GramScorer::score(std::span<const uint32_t> words) const {
  std::vector<LineScore> lines;
  State state = begin();
  LineScore line;
  for (const uint32_t word : words) {
    line.log_p += static_cast<double>(step(state, word));
    line.words += 1;
    if (word != END) continue;
    lines.push_back(line);
    line = LineScore();
    state = begin();
  }
  return lines;
}

std::vector<float> GramScorer::score_words(std::span<const uint32_t> words) const {
  std::vector<float> found;
  found.reserve(words.size());
  State state = begin();
  for (const uint32_t word : words) {
    found.push_back(step(state, word));
    if (word == END) state = begin();
  }
  return found;
}

std::vector<uint32_t> number_words(std::span<const uint64_t> hashes, const Table& vocabulary) {
  std::vector<uint32_t> words;
  words.reserve(hashes.size());
  for (const uint64_t hash : hashes) {
    const uint64_t* found = hash == LINE_END ? nullptr : vocabulary.find(hash);
    words.push_back(hash == LINE_END ? END : found ? static_cast<uint32_t>(*found) : UNKNOWN);
  }
  return words;
}

}  // namespace mj
