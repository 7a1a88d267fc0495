#include "filters/lines.h"

#include <algorithm>

#include "check.h"
#include "filters/hashes.h"

namespace mj {
namespace {

std::u32string_view stripped(std::u32string_view line, const Characters& characters) {
  while (!line.empty() && characters.is(line.front(), kSpace)) line.remove_prefix(1);
  while (!line.empty() && characters.is(line.back(), kSpace)) line.remove_suffix(1);
  return line;
}

}  // namespace

LineShapes line_shapes(std::u32string_view text, const Characters& characters) {
  LineShapes shapes;
  const auto look = [&](std::u32string_view whole) {
    const auto line = stripped(whole, characters);
    ++shapes.lines;
    shapes.bulleted += line.starts_with(U'-') || line.starts_with(U'\u2022');
    shapes.trailing += line.ends_with(U"...") || line.ends_with(U'\u2026');
  };
  size_t start = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!characters.is(text[i], kBreak)) continue;
    look(text.substr(start, i - start));
    i += text[i] == U'\r' && i + 1 < text.size() && text[i + 1] == U'\n';
    start = i + 1;
  }
  if (start < text.size()) look(text.substr(start));
  return shapes;
}

Repeats repeats(std::u32string_view text, size_t breaks) {
  MJ_CHECK(breaks >= 1, "breaks must be at least 1, got ", breaks);
  Repeats found;
  Tally tally(static_cast<size_t>(std::count(text.begin(), text.end(), U'\n')) / breaks + 1);
  const auto look = [&](std::u32string_view part) {
    ++found.parts;
    if (tally.count(hash_of(part)) == 1) return;
    ++found.repeated;
    found.characters += static_cast<int64_t>(part.size());
  };
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    size_t run = 0;
    while (i + run < text.size() && text[i + run] == U'\n') ++run;
    if (run >= breaks) {
      look(text.substr(start, i - start));
      start = i + run;
    }
    i += std::max<size_t>(run, 1);
  }
  look(text.substr(start));
  return found;
}

LineEnds line_ends(std::u32string_view text, const Characters& characters, int64_t brief) {
  LineEnds found;
  found.newlines = std::count(text.begin(), text.end(), U'\n');
  Tally tally(static_cast<size_t>(found.newlines) + 1);
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find(U'\n', start), text.size());
    const auto line = text.substr(start, end - start);
    start = end + 1;
    if (stripped(line, characters).empty()) continue;
    const auto size = static_cast<int64_t>(line.size());
    ++found.lines;
    found.ended += characters.is(line.back(), kTerminal);
    found.brief += size <= brief;
    found.repeated += tally.count(hash_of(line)) > 1 ? size : 0;
  }
  return found;
}

KindCounts kind_counts(std::u32string_view text, const Characters& characters) {
  KindCounts found;
  for (const char32_t c : text) {
    found.spaces += characters.is(c, kSpace);
    found.letters += characters.is(c, kLetter | kMark);
    found.capitals += characters.is(c, kUpper);
    found.digits += characters.is(c, kDigit);
    found.punctuation += characters.is(c, kPunctuation);
  }
  return found;
}

}  // namespace mj
