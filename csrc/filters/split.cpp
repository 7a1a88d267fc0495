#include "filters/split.h"

#include <algorithm>
#include <array>

#include "check.h"

namespace mj {
namespace {

constexpr std::array<std::u32string_view, 21> kAbbreviations = {
    U"Mr.",   U"Mrs.", U"Ms.", U"Dr.",  U"Prof.", U"St.",  U"Jr.",  U"Sr.",  U"Inc.", U"Co.",
    U"Corp.", U"Ltd.", U"vs.",  U"Gov.", U"Gen.", U"Jan.", U"Feb.", U"Aug.", U"Sep.", U"Oct.", U"Dec."};
constexpr std::array<std::u32string_view, 5> kClitics = {U"re", U"ve", U"ll", U"d", U"m"};

class Splitter {
 public:
  Splitter(std::u32string_view text, const Characters& characters)
      : text_(text), characters_(characters) {}

  std::vector<Span> split() {
    const auto size = static_cast<uint32_t>(text_.size());
    words_.reserve(size / 5 + 1);
    for (uint32_t i = 0; i < size;) {
      while (i < size && is(i, kSpace)) ++i;
      const uint32_t start = i;
      while (i < size && !is(i, kSpace)) ++i;
      if (start < i) split_piece(start, i);
    }
    return std::move(words_);
  }

 private:
  bool is(uint32_t i, uint16_t any_of) const { return characters_.is(text_[i], any_of); }
  bool letter(uint32_t i) const { return is(i, kLetter | kMark); }
  bool apostrophe(uint32_t i) const { return text_[i] == U'\'' || text_[i] == U'\u2019'; }
  void add(uint32_t start, uint32_t end) {
    if (start < end) words_.push_back({start, end});
  }

  void split_piece(uint32_t start, uint32_t end) {
    while (start < end) {
      const uint32_t size = prefix(start, end);
      if (size == 0) break;
      add(start, start + size);
      start += size;
    }
    const uint32_t last = end;
    std::vector<uint32_t>& cuts = cuts_;
    cuts.clear();
    while (start < end) {
      const uint32_t size = suffix(start, end);
      if (size == 0) break;
      cuts.push_back(end);
      end -= size;
    }
    split_core(start, end);
    for (auto cut = cuts.rbegin(); cut != cuts.rend(); ++cut) {
      add(end, *cut);
      end = *cut;
    }
    MJ_CHECK(end == last, "split_words: lost a piece at ", start);
  }

  // Characters to cut off at the start of [start, end).
  uint32_t prefix(uint32_t start, uint32_t end) const {
    if (text_[start] == U'.') {
      uint32_t dots = 1;
      while (start + dots < end && text_[start + dots] == U'.') ++dots;
      return dots > 1 ? dots : 0;
    }
    if (text_[start] == U'+') return start + 1 == end || !is(start + 1, kDigit);
    return is(start, kEdge | kLead);
  }

  // Characters to cut off at its end.
  uint32_t suffix(uint32_t start, uint32_t end) const {
    const uint32_t last = end - 1;
    if (is(last, kEdge)) return 1;
    if (last == start) return 0;
    if (text_[last] == U'.') return final_dots(start, end);
    if (text_[last] == U'%' || text_[last] == U'+') return is(last - 1, kDigit);
    if (end - start > 2 && (text_[last] | 0x20) == U's' && apostrophe(last - 1)) return 2;
    return text_[last] == U'\u2013' || text_[last] == U'\u2014';
  }

  uint32_t final_dots(uint32_t start, uint32_t end) const {
    uint32_t dots = 1;
    while (end - dots > start && text_[end - dots - 1] == U'.') ++dots;
    if (dots > 1 || end - start < 2) return dots > 1 ? dots : 0;
    const uint32_t before = end - 2;
    const bool single = before == start || text_[before - 1] == U'.';
    if (single && is(before, kLetter)) return 0;  // an initial, U.S., e.g.
    const auto piece = text_.substr(start, end - start);
    return std::find(kAbbreviations.begin(), kAbbreviations.end(), piece) == kAbbreviations.end();
  }

  void split_core(uint32_t start, uint32_t end) {
    if (start == end) return;
    const auto piece = text_.substr(start, end - start);
    const bool mail = piece.find(U'@') != piece.npos && text_[start] != U'@';
    if (mail || piece.find(U"://") != piece.npos || piece.starts_with(U"www.")) {
      return add(start, end);
    }
    const uint32_t cut = clitic(start, end);
    split_inside(start, cut);
    add(cut, end);
  }

  // Where the English clitic at the end of a word begins; `end` when there is none.
  uint32_t clitic(uint32_t start, uint32_t end) const {
    if (end - start < 3) return end;
    for (const auto clitic : kClitics) {
      const auto size = static_cast<uint32_t>(clitic.size());
      if (end - start < size + 2 || !apostrophe(end - size - 1)) continue;
      if (text_.substr(end - size, size) == clitic) return end - size - 1;
    }
    const bool negated = text_[end - 1] == U't' && apostrophe(end - 2) && text_[end - 3] == U'n';
    return negated && end - start > 3 ? end - 3 : end;
  }

  void split_inside(uint32_t start, uint32_t end) {
    for (uint32_t i = start; i < end;) {
      uint32_t size = is(i, kUnspaced) ? character(i, end) : 0;
      if (size == 0 && start < i) size = infix(i, end);
      if (size == 0) {
        ++i;
        continue;
      }
      add(start, i);
      add(i, i + size);
      start = i += size;
    }
    add(start, end);
  }

  // A character with its marks.
  uint32_t character(uint32_t i, uint32_t end) const {
    uint32_t size = 1;
    while (i + size < end && is(i + size, kMark)) ++size;
    return size;
  }

  // Size of a separator at i, which is neither the first of its word nor, with it, the last.
  uint32_t infix(uint32_t i, uint32_t end) const {
    if (is(i, kLetter | kDigit | kMark)) return 0;
    if (text_[i] == U'\u2026') return 1;
    // Of all but dots no run of more than three separates: none is counted again at each of its signs.
    const uint32_t stop = text_[i] == U'.' ? end : std::min(end, i + 4);
    uint32_t run = 1;
    while (i + run < stop && text_[i + run] == text_[i]) ++run;
    if (i + run >= end) return 0;
    switch (text_[i]) {
      case U'.':
        if (run > 1) return run;
        return is(i - 1, kLetter) && !is(i - 1, kUpper) && is(i + 1, kUpper);
      case U',':
        return run == 1 && letter(i - 1) && letter(i + 1);
      case U'-':
        if (run == 1 && is(i - 1, kDigit) && is(i + 1, kDigit)) return 1;
        return run <= 3 && is(i - 1, kLetter | kMark | kDigit) && letter(i + run) ? run : 0;
      case U'\u2013':
      case U'\u2014':
      case U'~':
        return run == 1 && letter(i - 1) && letter(i + 1);
      case U':':
      case U'<':
      case U'>':
      case U'=':
      case U'/':
        return run == 1 && (letter(i - 1) || is(i - 1, kDigit)) && letter(i + 1);
      case U'+':
      case U'*':
      case U'^':
        return run == 1 && is(i - 1, kDigit) && is(i + 1, kDigit);
      default:
        return 0;
    }
  }

  std::u32string_view text_;
  const Characters& characters_;
  std::vector<Span> words_;
  std::vector<uint32_t> cuts_;
};

}  // namespace

std::vector<Span> split_words(std::u32string_view text, const Characters& characters) {
  MJ_CHECK(text.size() < UINT32_MAX, "text must have under 2^32 - 1 characters, got ", text.size());
  return Splitter(text, characters).split();
}

}  // namespace mj
