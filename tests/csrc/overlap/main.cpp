// Words, and phrases in texts, beside a search word by word.
#include <vector>

#include "exact.h"
#include "overlap/phrases.h"
#include "overlap/words.h"

namespace {

std::vector<std::string> words_of(std::string_view text) {
  std::vector<mj::Word> words;
  mj::cut_words(text, words);
  std::vector<std::string> found;
  size_t before = 0;
  for (const auto& [start, end] : words) {
    exact::check(before <= start && start < end && end <= text.size(), "no words", text);
    found.emplace_back(text.substr(start, end - start));
    before = end;
  }
  return found;
}

std::string joined(const std::vector<std::string>& words, size_t first, size_t count) {
  std::string phrase = words[first];
  for (size_t i = 1; i < count; ++i) phrase += " " + words[first + i];
  return phrase;
}

void compare(std::string_view known, std::string_view text) {
  mj::Phrases phrases(3, 1);
  const auto added = phrases.add(known);
  const auto words = words_of(text);
  size_t wanted = 0;
  for (size_t at = 0; at < words.size(); ++at) {
    for (int64_t phrase = 0; phrase < phrases.count(); ++phrase) {
      const auto of = words_of(exact::Text(phrases.words_of(phrase)));
      if (at + of.size() > words.size()) continue;
      wanted += joined(words, at, of.size()) == phrases.words_of(phrase);
    }
  }
  const auto hits = phrases.find(text);
  exact::check(hits.size() == wanted, "phrases differ", text);
  for (const auto& hit : hits) {
    const auto first = static_cast<size_t>(hit.word);
    const auto phrase = joined(words, first, static_cast<size_t>(hit.words));
    exact::check(phrase == phrases.words_of(hit.phrase), "no such phrase", text);
  }
}

}  // namespace

int main() {
  exact::each_hostile([](std::string_view text) {
    if (text.size() < 100) compare(text, text);
    words_of(text);
  });
  const exact::Text text("one two three four one two three five \xe4\xbd\xa0\xe5\xa5\xbd one");
  compare(exact::Text("two three five"), text);
  compare(exact::Text("one"), text);
  return exact::faults == 0 ? 0 : 1;
}
