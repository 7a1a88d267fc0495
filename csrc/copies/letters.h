// Texts as words of letters: case, accents and digits folded by a table, all else separates.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mj {

// What stands in the table for a code point that is no letter.
enum Fold : uint32_t {
  kSeparates = 0,  // ends a word
  kDropped = 1,    // an accent: as if it were not there
  kDigit = 2,      // a run of them is one letter 0
};

// Code points of the table; those above are letters of their own.
constexpr size_t kTableSize = 0x20000;

// Reads a valid UTF-8 text letter by letter.
class Letters {
 public:
  explicit Letters(std::span<const uint32_t> table);  // [kTableSize]: a Fold, or the letter itself

  // Call sink.letter(code point) for each letter, sink.end() after each word of at least one.
  template <typename Sink>
  void read(std::string_view text, Sink& sink) const;

 private:
  std::vector<uint32_t> table_;
};

// The code point at `at`, which is moved behind it.
inline uint32_t next_code_point(const uint8_t*& at, const uint8_t* end) {
  const uint32_t first = *at++;
  if (first < 0x80) return first;
  const int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
  uint32_t value = first & (0x3fu >> more);
  for (int i = 0; i < more && at < end; ++i) value = (value << 6) | (*at++ & 0x3fu);
  return value;
}

void append_utf8(std::string& text, uint32_t code_point);

template <typename Sink>
void Letters::read(std::string_view text, Sink& sink) const {
  const auto* at = reinterpret_cast<const uint8_t*>(text.data());
  const auto* const end = at + text.size();
  bool in_word = false;
  bool after_digit = false;
  while (at < end) {
    const uint32_t point = next_code_point(at, end);
    const uint32_t letter = point < kTableSize ? table_[point] : point;
    if (letter > kDigit) [[likely]] {
      sink.letter(letter);
      in_word = true;
      after_digit = false;
    } else if (letter == kSeparates) {
      if (in_word) sink.end();
      in_word = after_digit = false;
    } else if (letter == kDigit) {
      if (!after_digit) sink.letter('0');
      in_word = after_digit = true;
    }
  }
  if (in_word) sink.end();
}

}  // namespace mj
