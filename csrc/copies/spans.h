// Texts cut into lines, paragraphs or sentences, each with a hash of its letters.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "copies/shingles.h"

namespace mj {

enum class SpanKind { kLine, kParagraph, kSentence };

struct Span {
  uint64_t start;  // bytes; with all white space up to the next span
  uint64_t end;
  uint64_t first;  // 128-bit hash of the letters
  uint64_t second;
};

// Append the spans of `text` that have at least `least` letters (spaces between words count).
//
// A line ends at a line feed, a paragraph at an empty line, a sentence at the end of a line or at
// one of . ! ? before white space, or at a full-width one of them.
void find_spans(std::string_view text, SpanKind kind, size_t least, const Shingler& shingler,
                std::vector<Span>& spans);

}  // namespace mj
