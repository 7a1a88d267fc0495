// Words, lines and characters of texts, beside counts by hand.
#include <memory>

#include "exact.h"
#include "filters/characters.h"
#include "filters/lines.h"
#include "filters/split.h"
#include "filters/words.h"

namespace {

std::shared_ptr<const mj::Characters> characters() {
  auto made = std::make_shared<mj::Characters>();
  made->add(U" \n\t", mj::kSpace);
  made->add(U"\n", mj::kBreak);
  made->add(U"abcdefghijklmnopqrstuvwxyz", mj::kLetter);
  made->add(U"ABC", mj::kLetter | mj::kUpper);
  made->add(U"0123456789", mj::kDigit);
  made->add(U".,:;!?\"'()-", mj::kPunctuation);
  made->add(U".!?", mj::kTerminal);
  made->add(U"\u4f60\u597d", mj::kLetter | mj::kUnspaced);
  made->add(U"\"()", mj::kEdge);
  return made;
}

// In memory of exactly its size, each byte a character.
void compare(std::string_view bytes, const std::shared_ptr<const mj::Characters>& known) {
  const auto held = std::make_unique<char32_t[]>(bytes.size());
  int64_t spaces = 0, newlines = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    held[i] = static_cast<unsigned char>(bytes[i]);
    spaces += held[i] == ' ' || held[i] == '\n' || held[i] == '\t';
    newlines += held[i] == '\n';
  }
  const std::u32string_view text(held.get(), bytes.size());
  exact::check(mj::kind_counts(text, *known).spaces == spaces, "spaces differ", bytes);
  exact::check(mj::line_ends(text, *known, 3).newlines == newlines, "newlines differ", bytes);
  exact::check(mj::line_shapes(text, *known).lines <= newlines + 1, "lines differ", bytes);
  exact::check(mj::repeats(text, 1).parts <= newlines + 1, "parts differ", bytes);
  uint32_t before = 0;
  for (const auto& [start, end] : mj::split_words(text, *known)) {
    exact::check(before <= start && start < end && end <= text.size(), "no words", bytes);
    before = end;
  }
  const mj::Words words{std::u32string(text), known};
  for (const size_t n : {1, 2, 3, 5}) {
    exact::check((words.top_run(n) < 0) == (words.size() < n), "runs differ", bytes);
    exact::check(words.repeated_runs(n) >= 0, "repeats differ", bytes);
  }
  words.distinct_share(4);
  words.sentences();
  words.present(mj::Phrases({U"a b", U"word"}, *known));
}

}  // namespace

int main() {
  const auto known = characters();
  exact::each_hostile([&](std::string_view text) { compare(text, known); });
  const mj::Words words{U"the cat saw the cat. you can't see 1.5 cats...", known};
  exact::check(words.top_run(2) == 14, "the cat is the most frequent of two");
  exact::check(words.covered(mj::Phrases({U"the cat"}, *known)) == 4, "the cat stands twice");
  return exact::faults == 0 ? 0 : 1;
}
