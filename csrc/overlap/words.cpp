#include "overlap/words.h"

#include <array>

namespace mj {
namespace {

enum class Kind : std::uint8_t { gap, letter, single };

constexpr std::array<Kind, 128> ascii_kinds() {
  std::array<Kind, 128> kinds{};
  for (int c = 0; c < 128; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    kinds[static_cast<std::size_t>(c)] = letter ? Kind::letter : Kind::gap;
  }
  return kinds;
}
constexpr auto kAscii = ascii_kinds();

struct Range {
  std::uint32_t first, last;
};
constexpr Range kSingles[] = {
    {0x0E00, 0x0EFF}, {0x1000, 0x109F}, {0x1780, 0x17FF}, {0x3040, 0x30FF}, {0x31F0, 0x31FF},
    {0x3400, 0x4DBF}, {0x4E00, 0x9FFF}, {0xF900, 0xFAFF}, {0xFF66, 0xFF9D}, {0x20000, 0x3FFFF},
};
// Spaces, punctuation and symbols beyond ASCII.
constexpr Range kGaps[] = {
    {0x0080, 0x00A9}, {0x00AB, 0x00B4}, {0x00B6, 0x00B9}, {0x00BB, 0x00BF}, {0x00D7, 0x00D7},
    {0x00F7, 0x00F7}, {0x037E, 0x037E}, {0x0387, 0x0387}, {0x055A, 0x055F}, {0x0589, 0x058A},
    {0x05BE, 0x05BE}, {0x05F3, 0x05F4}, {0x060C, 0x060D}, {0x061B, 0x061F}, {0x066A, 0x066D},
    {0x06D4, 0x06D4}, {0x0964, 0x0965}, {0x0E3F, 0x0E3F}, {0x104A, 0x104F}, {0x17D4, 0x17D6},
    {0x2000, 0x206F}, {0x20A0, 0x20CF}, {0x2190, 0x245F}, {0x2500, 0x2BFF}, {0x2E00, 0x2E7F},
    {0x3000, 0x3004}, {0x3008, 0x3020}, {0x3030, 0x3030}, {0x303D, 0x303D}, {0x30FB, 0x30FB},
    {0xFE10, 0xFE1F}, {0xFE30, 0xFE6F}, {0xFF00, 0xFF0F}, {0xFF1A, 0xFF20}, {0xFF3B, 0xFF40},
    {0xFF5B, 0xFF65}, {0xFFE0, 0xFFFD}, {0x1F000, 0x1FAFF},
};

template <std::size_t N>
bool holds(const Range (&ranges)[N], std::uint32_t point) {
  for (const Range& range : ranges) {
    if (point < range.first) return false;
    if (point <= range.last) return true;
  }
  return false;
}

// The code point at `at` and its bytes; a byte that starts none stands for itself.
std::pair<std::uint32_t, std::size_t> decode(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const std::uint32_t first = byte(0);
  const std::size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC0 ? 2 : 1;
  if (size == 1 || at + size > text.size()) return {0xFFFF'FFFF, 1};
  std::uint32_t point = first & (0x7Fu >> size);
  for (std::size_t i = 1; i < size; ++i) point = point << 6 | (byte(i) & 0x3Fu);
  return {point, size};
}

Kind kind_of(std::uint32_t point) {
  if (holds(kGaps, point)) return Kind::gap;
  return holds(kSingles, point) ? Kind::single : Kind::letter;
}

}  // namespace

void cut_words(std::string_view text, std::vector<Word>& words) {
  words.clear();
  constexpr std::size_t none = static_cast<std::size_t>(-1);
  std::size_t open = none;
  for (std::size_t at = 0, size = 1; at < text.size(); at += size) {
    const auto byte = static_cast<unsigned char>(text[at]);
    Kind kind;
    if (byte < 0x80) {
      kind = kAscii[byte];
      size = 1;
    } else {
      const auto [point, bytes] = decode(text, at);
      kind = kind_of(point);
      size = bytes;
    }
    if (kind == Kind::letter) {
      if (open == none) open = at;
      continue;
    }
    if (open != none) words.push_back({open, at});
    open = none;
    if (kind == Kind::single) words.push_back({at, at + size});
  }
  if (open != none) words.push_back({open, text.size()});
}

}  // namespace mj
