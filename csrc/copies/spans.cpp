#include "copies/spans.h"

#include <array>

#include "copies/hash.h"

namespace mj {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

// The place behind the white space at `at`; `feeds` counts its line feeds.
size_t skip_space(std::string_view text, size_t at, int& feeds) {
  for (feeds = 0; at < text.size() && is_space(text[at]); ++at) feeds += text[at] == '\n';
  return at;
}

// Bytes of a mark at `at` that ends a sentence of a script without spaces, or 0.
size_t wide_mark(std::string_view text, size_t at) {
  constexpr std::array<std::string_view, 4> marks = {"\u3002", "\uff01", "\uff1f", "\uff61"};
  for (const auto mark : marks) {
    if (text.substr(at, mark.size()) == mark) return mark.size();
  }
  return 0;
}

// Where the sentence that goes on at `at` ends, if it does there; otherwise `at`.
size_t sentence_end(std::string_view text, size_t at) {
  const char c = text[at];
  if (c == '.' || c == '!' || c == '?') {
    return at + 1 == text.size() || is_space(text[at + 1]) ? at + 1 : at;
  }
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x80 ? at : at + wide_mark(text, at);
}

// The end of the span that starts at `at`, and of the space behind it.
size_t span_end(std::string_view text, size_t at, SpanKind kind) {
  while (at < text.size()) {
    int feeds = 0;
    if (text[at] == '\n') {
      const size_t behind = skip_space(text, at, feeds);
      if (kind != SpanKind::kParagraph || feeds > 1) return behind;
      at = behind;
      continue;
    }
    const size_t ended = kind == SpanKind::kSentence ? sentence_end(text, at) : at;
    if (ended > at) return skip_space(text, ended, feeds);
    ++at;
  }
  return at;
}

}  // namespace

void find_spans(std::string_view text, SpanKind kind, size_t least, const Shingler& shingler,
                std::vector<Span>& spans) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = span_end(text, at, kind);
    const std::string letters = shingler.normalise(text.substr(at, end - at));
    if (!letters.empty() && letters.size() >= least) {
      const auto [first, second] = hash128(letters, 0);
      spans.push_back({at, end, first, second});
    }
    at = end;
  }
}

}  // namespace mj
