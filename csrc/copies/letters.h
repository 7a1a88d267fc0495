// Texts folded to the letters that count: case, accents and digits by a table, all else separates.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "copies/machines.h"

namespace mj {

// What stands in the table for a code point that is no letter.
enum Fold : uint32_t {
  kSeparates = 0,  // ends a word
  kDropped = 1,    // an accent: as if it were not there
  kDigit = 2,      // a run of them is one letter 0
};

// Code points of the table; those above are letters of their own.
constexpr size_t kTableSize = 0x20000;

// A text's letters in UTF-8, with a zero byte for each separator.
struct Folded {
  std::vector<char> bytes;  // zeros behind `size`, at least kPadding
  size_t size = 0;
  size_t letters = 0;
};

constexpr size_t kPadding = 64;

// What each ASCII code point counts as: 0 separates; the highest bit is set of a kDigit.
using AsciiTable = std::array<uint8_t, 128>;

class Letters {
 public:
  // table [kTableSize]: a Fold, or the letter itself.
  Letters(std::span<const uint32_t> table, Machine machine);

  // Fold a valid UTF-8 text into `folded`, whose memory is used again.
  void fold(std::string_view text, Folded& folded) const;

 private:
  void fold_each(struct FoldState& state, const uint8_t* stop) const;

  std::vector<uint32_t> table_;
  AsciiTable ascii_;
  Machine machine_;
};

// Call work(first, last) for each word: bytes between separators.
template <typename Work>
void each_word(const Folded& folded, const Work& work);

// The letters of each, as code points.
template <typename Work>
void each_letter(const Folded& folded, const Work& work);

// The words, with one space between.
std::string joined_words(const Folded& folded);

}  // namespace mj

#include "copies/letters_inline.h"
