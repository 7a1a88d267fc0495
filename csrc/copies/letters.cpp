#include "copies/letters.h"

#include "check.h"

namespace mj {
namespace {

char* put_utf8(char* out, uint32_t point) {
  const auto put = [&](uint32_t byte) { *out++ = static_cast<char>(byte); };
  if (point < 0x80) {
    put(point);
  } else if (point < 0x800) {
    put(0xc0 | (point >> 6));
    put(0x80 | (point & 0x3f));
  } else if (point < 0x10000) {
    put(0xe0 | (point >> 12));
    put(0x80 | ((point >> 6) & 0x3f));
    put(0x80 | (point & 0x3f));
  } else {
    put(0xf0 | (point >> 18));
    put(0x80 | ((point >> 12) & 0x3f));
    put(0x80 | ((point >> 6) & 0x3f));
    put(0x80 | (point & 0x3f));
  }
  return out;
}

}  // namespace

Letters::Letters(std::span<const uint32_t> table) : table_(table.begin(), table.end()) {
  MJ_CHECK(table.size() == kTableSize, "table must hold ", kTableSize, " code points, got ",
           table.size());
  for (size_t point = 0; point < 128; ++point) {
    const uint32_t letter = table[point];
    MJ_CHECK(letter < 128, "table: ", letter, " of code point ", point, " must be below 128");
    digits_[point] = letter == kDigit;
    ascii_[point] = letter == kDigit ? '0' : letter > kDigit ? static_cast<char>(letter) : '\0';
  }
}

// Two bytes become four at most, one stays one: a text doubles at most.
void Letters::fold(std::string_view text, Folded& folded) const {
  const size_t room = 2 * text.size() + 2 * kPadding;
  if (folded.bytes.size() < room) folded.bytes.resize(room);
  char* const begin = folded.bytes.data();
  char* out = begin;
  size_t more = 0;  // bytes behind the first of a letter
  uint8_t digit = 0;
  const auto* at = reinterpret_cast<const uint8_t*>(text.data());
  const auto* const end = at + text.size();
  while (at < end) {
    if (*at < 0x80) [[likely]] {
      const uint8_t now = digits_[*at];
      *out = ascii_[*at++];
      out += !(now & digit);
      digit = now;
      continue;
    }
    const uint32_t point = next_code_point(at, end);
    const uint32_t letter = point < kTableSize ? table_[point] : point;
    if (letter == kDropped) continue;
    const uint8_t now = letter == kDigit;
    if (!(now & digit)) {
      char* const first = out;
      out = put_utf8(out, now ? '0' : letter);
      more += static_cast<size_t>(out - first) - 1;
    }
    digit = now;
  }
  folded.size = static_cast<size_t>(out - begin);
  std::memset(out, 0, kPadding);
  size_t separators = 0;
  for (const char* byte = begin; byte < out; ++byte) separators += *byte == 0;
  folded.letters = folded.size - separators - more;
}

std::string joined_words(const Folded& folded) {
  std::string result;
  result.reserve(folded.size);
  each_word(folded, [&](const char* first, const char* last) {
    if (!result.empty()) result.push_back(' ');
    result.append(first, last);
  });
  return result;
}

}  // namespace mj
