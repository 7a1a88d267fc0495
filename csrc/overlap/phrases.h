// A set of phrases (runs of words) and where they occur in texts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "overlap/words.h"

namespace mj {

// One phrase of a text.
struct Hit {
  std::int64_t word;    // number of its first word in the text, from 0
  std::int64_t words;   // how many
  std::int64_t phrase;  // its number, from 0, in the order of `add`
};

// The runs of `size` words of the texts that are added; of a text with fewer, but at least `least`,
// all its words. Words are compared byte by byte: hashes only choose what is compared.
class Phrases {
 public:
  Phrases(std::int64_t size, std::int64_t least);

  // Adds a text's phrases; those that are there already keep their number.
  // Returns the numbers of its phrases, in order; none for a text that is too short.
  std::vector<std::int64_t> add(std::string_view text);

  // Every phrase in a text, by its first word; of several at one word the longest first.
  std::vector<Hit> find(std::string_view text) const;

  std::int64_t count() const { return static_cast<std::int64_t>(phrases_.size()); }
  // Its words with one space between them.
  const std::string& words_of(std::int64_t phrase) const;

 private:
  struct Length {
    std::int64_t words;
    std::uint64_t leading;  // factor of the word that leaves the window
    std::unordered_multimap<std::uint64_t, std::int64_t> by_hash;
    std::vector<std::uint64_t> seen;  // bits: most windows end here
  };
  Length& length_of(std::int64_t words);
  std::int64_t look_up(const Length& length, std::uint64_t hash, std::string_view joined) const;

  std::int64_t size_, least_;
  std::vector<Length> lengths_;
  std::vector<std::string> phrases_;
};

}  // namespace mj
