// What a character is to the filters: bits, looked up by code point.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace mj {

enum Kind : uint16_t {
  kSpace = 1,        // white space
  kLetter = 2,       // alphabetic
  kUpper = 4,        // upper case
  kDigit = 8,        // decimal digit
  kMark = 16,        // combining mark: part of the letter before it
  kPunctuation = 32, // Unicode's categories P*
  kSymbol = 64,      // of words made of these alone Gopher's rules count only some
  kTerminal = 128,   // ends a sentence
  kEdge = 256,       // is cut off at both ends of a word
  kLead = 512,       // is cut off at the start of a word only
  kUnspaced = 1024,  // of a script without spaces: a word of its own
  kBreak = 2048,     // ends a line, as str.splitlines has it
};

// A table over all code points; what it holds is the caller's affair.
class Characters {
 public:
  Characters() : kinds_(0x110000, 0) {}

  void add(char32_t c, uint16_t kinds) { kinds_[c] |= kinds; }
  void add(std::u32string_view text, uint16_t kinds) {
    for (const char32_t c : text) add(c, kinds);
  }
  bool is(char32_t c, uint16_t any_of) const { return (kinds_[c] & any_of) != 0; }

 private:
  std::vector<uint16_t> kinds_;
};

}  // namespace mj
