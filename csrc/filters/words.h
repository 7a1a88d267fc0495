// What filters count about the words of a text.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "filters/characters.h"
#include "filters/split.h"

namespace mj {

// Phrases to be looked for, each a run of words.
class Phrases {
 public:
  Phrases(const std::vector<std::u32string>& phrases, const Characters& characters);
  // Number of the phrase whose words have this key, or -1.
  int64_t find(uint64_t key) const;
  size_t size() const { return numbers_.size(); }
  // Words of the longest.
  size_t longest() const { return longest_; }

 private:
  std::unordered_map<uint64_t, int64_t> numbers_;
  size_t longest_ = 0;
};

class Words {
 public:
  Words(std::u32string text, std::shared_ptr<const Characters> characters);
  // Words that somebody else has cut.
  Words(const std::vector<std::u32string>& words, std::shared_ptr<const Characters> characters);

  size_t size() const { return spans_.size(); }
  // Words that are not of symbols alone, and their characters.
  int64_t solid() const { return solid_; }
  int64_t solid_characters() const { return solid_characters_; }
  // Words with a letter.
  int64_t alphabetic() const { return alphabetic_; }
  std::u32string_view operator[](size_t i) const {
    return std::u32string_view(text_).substr(spans_[i].start, spans_[i].end - spans_[i].start);
  }

  // Characters that the most frequent run of n words takes up, spaces between its words counted;
  // the first of those that are equally frequent; -1 when there is no run.
  int64_t top_run(size_t n) const;
  // Characters in runs of n words that stood before; counted runs do not overlap.
  int64_t repeated_runs(size_t n) const;
  // How many of the phrases are there at all.
  int64_t present(const Phrases& phrases) const;
  // Words that stand in one of the phrases; overlapping phrases count once.
  int64_t covered(const Phrases& phrases) const;
  // Share of different words in `window` neighbours, the mean over all windows; of all words when
  // there are fewer; 0 when there is none.
  double distinct_share(size_t window) const;
  // Sentences: each begins with the first word behind a terminal that is no punctuation.
  int64_t sentences() const;

 private:
  void measure();
  // Call hit(number of the phrase, its first word, the word behind it) for each place of each.
  template <typename Hit>
  void each_phrase(const Phrases& phrases, const Hit& hit) const;
  uint64_t key(size_t first, size_t n) const;

  std::u32string text_;
  std::shared_ptr<const Characters> characters_;
  std::vector<Span> spans_;
  std::vector<uint64_t> hashes_;    // of each word
  std::vector<uint64_t> prefixes_;  // of the first words put together
  std::vector<int64_t> lengths_;    // their characters
  int64_t solid_ = 0, solid_characters_ = 0, alphabetic_ = 0;
};

}  // namespace mj
