// Shingles of a text: hashes of all runs of n words, or of n letters where words are not told apart.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "copies/letters.h"

namespace mj {

struct ShingleRules {
  int words = 5;         // in a shingle; a text of fewer is one shingle
  int letters = 10;      // in a shingle of a text that is cut by letters
  double longest = 20;   // letters a word on average, above which it is
};

// Memory for texts, one after the other.
struct ShingleRoom {
  Folded folded;
  std::vector<uint64_t> pieces;    // hashes of the words, or of the letters
  std::vector<uint64_t> shingles;  // of the last text, in order, repeated ones too
};

class Shingler {
 public:
  Shingler(std::span<const uint32_t> table, const ShingleRules& rules, Machine machine);

  // Make room.shingles those of `text`; none: it has no letter.
  void of(std::string_view text, ShingleRoom& room) const;

  // The letters that count, words parted by one space.
  std::string normalise(std::string_view text) const;

  Machine machine() const { return machine_; }

 private:
  Letters letters_;
  ShingleRules rules_;
  Machine machine_;
};

// |a and b| / |a or b| of two sets of shingles; 0 when both are empty.  Sorts both.
double jaccard(std::vector<uint64_t>& a, std::vector<uint64_t>& b);

}  // namespace mj
