#include "overlap/phrases.h"

#include <algorithm>

#include "check.h"

namespace mj {
namespace {

constexpr std::uint64_t kBase = 0x9E3779B97F4A7C15ULL;
constexpr std::size_t kBits = std::size_t{1} << 24;  // 2 MiB a length

std::uint64_t mix(std::uint64_t value) {
  value ^= value >> 32;
  value *= 0xD6E8FEB86659FD93ULL;
  value ^= value >> 32;
  return value;
}

std::uint64_t hash_word(std::string_view word) {
  std::uint64_t hash = 0xCBF29CE484222325ULL;  // FNV-1a, then mixed
  for (const char c : word) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return mix(hash);
}

std::uint64_t power(std::uint64_t base, std::int64_t exponent) {
  std::uint64_t result = 1;
  for (std::int64_t i = 0; i < exponent; ++i) result *= base;
  return result;
}

std::string_view of(std::string_view text, const Word& word) {
  return text.substr(word.start, word.end - word.start);
}

void join(std::string_view text, const Word* words, std::int64_t count, std::string& out) {
  out.clear();
  for (std::int64_t i = 0; i < count; ++i) {
    if (i) out.push_back(' ');
    out.append(of(text, words[i]));
  }
}

// Polynomial hashes of all windows of `words` words, one after the other (Karp and Rabin 1987).
template <typename Use>
void each_window(const std::vector<std::uint64_t>& hashes, std::int64_t words,
                 std::uint64_t leading, Use use) {
  std::uint64_t window = 0;
  const auto count = static_cast<std::int64_t>(hashes.size());
  for (std::int64_t i = 0; i < count; ++i) {
    if (i >= words) window -= leading * hashes[static_cast<std::size_t>(i - words)];
    window = window * kBase + hashes[static_cast<std::size_t>(i)];
    if (i + 1 >= words) use(i + 1 - words, mix(window));
  }
}

std::vector<std::uint64_t> hash_words(std::string_view text, const std::vector<Word>& words) {
  std::vector<std::uint64_t> hashes(words.size());
  std::transform(words.begin(), words.end(), hashes.begin(),
                 [&](const Word& word) { return hash_word(of(text, word)); });
  return hashes;
}

}  // namespace

Phrases::Phrases(std::int64_t size, std::int64_t least) : size_(size), least_(least) {
  MJ_CHECK(least >= 1 && least <= size, "least: found ", least, ", must be from 1 to size = ", size);
}

Phrases::Length& Phrases::length_of(std::int64_t words) {
  for (Length& length : lengths_) {
    if (length.words == words) return length;
  }
  lengths_.push_back({words, power(kBase, words - 1), {}, std::vector<std::uint64_t>(kBits / 64)});
  std::sort(lengths_.begin(), lengths_.end(),
            [](const Length& a, const Length& b) { return a.words > b.words; });
  return length_of(words);
}

std::vector<std::int64_t> Phrases::add(std::string_view text) {
  std::vector<Word> words;
  cut_words(text, words);
  const auto count = static_cast<std::int64_t>(words.size());
  if (count < least_) return {};
  Length& length = length_of(std::min(count, size_));
  std::vector<std::int64_t> numbers;
  std::string joined;
  each_window(hash_words(text, words), length.words, length.leading,
              [&](std::int64_t first, std::uint64_t hash) {
                join(text, &words[static_cast<std::size_t>(first)], length.words, joined);
                std::int64_t number = look_up(length, hash, joined);
                if (number < 0) {
                  number = this->count();
                  phrases_.push_back(joined);
                  length.by_hash.emplace(hash, number);
                  length.seen[hash % kBits / 64] |= std::uint64_t{1} << (hash % 64);
                }
                numbers.push_back(number);
              });
  return numbers;
}

std::vector<Hit> Phrases::find(std::string_view text) const {
  std::vector<Word> words;
  cut_words(text, words);
  const std::vector<std::uint64_t> hashes = hash_words(text, words);
  std::vector<Hit> hits;
  std::string joined;
  for (const Length& length : lengths_) {
    each_window(hashes, length.words, length.leading, [&](std::int64_t first, std::uint64_t hash) {
      if (!(length.seen[hash % kBits / 64] >> (hash % 64) & 1)) return;
      join(text, &words[static_cast<std::size_t>(first)], length.words, joined);
      const std::int64_t number = look_up(length, hash, joined);
      if (number >= 0) hits.push_back({first, length.words, number});
    });
  }
  std::stable_sort(hits.begin(), hits.end(),
                   [](const Hit& a, const Hit& b) { return a.word < b.word; });
  return hits;
}

const std::string& Phrases::words_of(std::int64_t phrase) const {
  MJ_CHECK(phrase >= 0 && phrase < count(), "phrase: found ", phrase, ", there are ", count());
  return phrases_[static_cast<std::size_t>(phrase)];
}

std::int64_t Phrases::look_up(const Length& length, std::uint64_t hash,
                              std::string_view joined) const {
  const auto [first, last] = length.by_hash.equal_range(hash);
  for (auto found = first; found != last; ++found) {
    if (phrases_[static_cast<std::size_t>(found->second)] == joined) return found->second;
  }
  return -1;
}

}  // namespace mj
