#include "filters/words.h"

#include <algorithm>
#include <utility>

#include "check.h"
#include "filters/hashes.h"

namespace mj {
namespace {

uint64_t joined(uint64_t before, uint64_t word) {
  return reduced(times(before, kWordBase) + word + 1);
}

}  // namespace

Phrases::Phrases(const std::vector<std::u32string>& phrases, const Characters& characters) {
  for (const auto& phrase : phrases) {
    uint64_t key = 0;
    const auto spans = split_words(phrase, characters);
    for (const auto [start, end] : spans) {
      key = joined(key, hash_of(std::u32string_view(phrase).substr(start, end - start)));
    }
    if (spans.empty()) continue;
    longest_ = std::max(longest_, spans.size());
    numbers_.try_emplace(key, static_cast<int64_t>(numbers_.size()));
  }
}

int64_t Phrases::find(uint64_t key) const {
  const auto found = numbers_.find(key);
  return found == numbers_.end() ? -1 : found->second;
}

Words::Words(std::u32string text, std::shared_ptr<const Characters> characters)
    : text_(std::move(text)), characters_(std::move(characters)) {
  spans_ = split_words(text_, *characters_);
  measure();
}

Words::Words(const std::vector<std::u32string>& words, std::shared_ptr<const Characters> characters)
    : characters_(std::move(characters)) {
  size_t size = 0;
  for (const auto& word : words) size += word.size();
  MJ_CHECK(size < UINT32_MAX, "words must have under 2^32 - 1 characters, got ", size);
  text_.reserve(size);
  for (const auto& word : words) {
    const auto start = static_cast<uint32_t>(text_.size());
    text_ += word;
    spans_.push_back({start, static_cast<uint32_t>(text_.size())});
  }
  measure();
}

void Words::measure() {
  hashes_.resize(size());
  prefixes_.assign(1, 0);
  lengths_.assign(1, 0);
  for (size_t i = 0; i < size(); ++i) {
    const auto word = (*this)[i];
    uint64_t hash = 0, prefix = prefixes_.back();
    bool solid = false, letter = false;
    for (const char32_t c : word) {
      hash = reduced(times(hash, kBase) + c + 1);
      prefix = reduced(times(prefix, kBase) + c + 1);
      solid = solid || !characters_->is(c, kSymbol);
      letter = letter || characters_->is(c, kLetter);
    }
    hashes_[i] = hash;
    prefixes_.push_back(prefix);
    lengths_.push_back(lengths_.back() + static_cast<int64_t>(word.size()));
    solid_ += solid;
    solid_characters_ += solid ? static_cast<int64_t>(word.size()) : 0;
    alphabetic_ += letter;
  }
}

uint64_t Words::key(size_t first, size_t n) const {
  uint64_t key = 0;
  for (size_t i = first; i < first + n; ++i) key = joined(key, hashes_[i]);
  return key;
}

int64_t Words::top_run(size_t n) const {
  MJ_CHECK(n >= 1, "n must be at least 1, got ", n);
  if (size() < n) return -1;
  std::vector<uint64_t> keys(size() - n + 1);
  Tally tally(keys.size());
  uint32_t most = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    keys[i] = key(i, n);
    most = std::max(most, tally.count(keys[i]));
  }
  size_t first = 0;  // of the equally frequent, the one that began first
  while (tally.times(keys[first]) != most) ++first;
  return (static_cast<int64_t>(n) - 1 + lengths_[first + n] - lengths_[first]) * most;
}

int64_t Words::repeated_runs(size_t n) const {
  MJ_CHECK(n >= 1, "n must be at least 1, got ", n);
  if (size() < n) return 0;
  const size_t runs = size() - n + 1;
  Tally tally(runs);
  Powers powers;
  int64_t characters = 0;
  for (size_t i = 0; i < runs;) {
    // Their characters alone are compared: "a bc" repeats "ab c", as in the peers.
    const int64_t length = lengths_[i + n] - lengths_[i];
    const uint64_t power = powers[static_cast<size_t>(length)];
    const uint64_t hash = without(prefixes_[i + n], prefixes_[i], power);
    const bool seen = tally.count(hash) > 1;
    characters += seen ? length : 0;
    i += seen ? n : 1;
  }
  return characters;
}

template <typename Hit>
void Words::each_phrase(const Phrases& phrases, const Hit& hit) const {
  for (size_t i = 0; i < size(); ++i) {
    uint64_t key = 0;
    for (size_t j = i; j < std::min(size(), i + phrases.longest()); ++j) {
      key = joined(key, hashes_[j]);
      const int64_t number = phrases.find(key);
      if (number >= 0) hit(static_cast<size_t>(number), i, j + 1);
    }
  }
}

int64_t Words::present(const Phrases& phrases) const {
  std::vector<bool> there(phrases.size());
  each_phrase(phrases, [&](size_t number, size_t, size_t) { there[number] = true; });
  return std::count(there.begin(), there.end(), true);
}

int64_t Words::covered(const Phrases& phrases) const {
  std::vector<bool> inside(size());
  each_phrase(phrases, [&](size_t, size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) inside[i] = true;
  });
  return std::count(inside.begin(), inside.end(), true);
}

double Words::distinct_share(size_t window) const {
  MJ_CHECK(window >= 1, "window must be at least 1, got ", window);
  if (size() == 0) return 0;
  const auto width = static_cast<int64_t>(std::min(window, size()));
  const auto starts = static_cast<int64_t>(size()) - width + 1;
  std::unordered_map<uint64_t, int64_t> next;
  int64_t distinct = 0;  // over all windows: a word counts in those where it stands last
  for (int64_t i = static_cast<int64_t>(size()) - 1; i >= 0; --i) {
    const auto [place, fresh] = next.try_emplace(hashes_[static_cast<size_t>(i)], i);
    const int64_t before = fresh ? starts : std::min(starts, place->second - width + 1);
    const int64_t first = std::max<int64_t>(0, i - width + 1);
    distinct += std::max<int64_t>(0, std::min(before, i + 1) - first);
    place->second = i;
  }
  return static_cast<double>(distinct) / static_cast<double>(starts * width);
}

int64_t Words::sentences() const {
  int64_t found = size() > 0;
  bool ended = false;
  for (size_t i = 0; i < size(); ++i) {
    const auto word = (*this)[i];
    const bool terminal = word.size() == 1 && characters_->is(word[0], kTerminal);
    const bool punctuation = std::all_of(word.begin(), word.end(), [&](char32_t c) {
      return characters_->is(c, kPunctuation);
    });
    if (terminal) {
      ended = true;
    } else if (ended && !punctuation) {
      ++found;
      ended = false;
    }
  }
  return found;
}

}  // namespace mj
