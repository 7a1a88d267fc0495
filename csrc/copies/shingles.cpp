#include "copies/shingles.h"

#include <algorithm>

#include "check.h"
#include "copies/hash.h"

namespace mj {
namespace {

constexpr uint64_t kBase = 0x9e3779b97f4a7c15ull;  // odd: a polynomial over it mixes all bits
constexpr uint64_t kWord = 0xa0761d6478bd642full;
constexpr uint64_t kLength = 0xe7037ed1a0b428dbull;

uint64_t power(uint64_t base, int exponent) {
  uint64_t result = 1;
  for (int i = 0; i < exponent; ++i) result *= base;
  return result;
}

// A polynomial over the last `size` pieces, moved on by one multiplication a piece.
class Window {
 public:
  Window(int size, std::vector<uint64_t>& out)
      : ring_(static_cast<size_t>(size)), leaving_(power(kBase, size)), out_(out) {}

  void add(uint64_t piece) {
    uint64_t& place = ring_[place_];
    value_ = value_ * kBase + piece - leaving_ * place;
    place = piece;
    if (++place_ == ring_.size()) place_ = 0;
    if (++pieces_ >= ring_.size()) out_.push_back(fold(value_ ^ kWord, kLength));
  }

  void finish() const {
    if (pieces_ && pieces_ < ring_.size()) out_.push_back(fold(value_ ^ kWord, kLength));
  }

 private:
  std::vector<uint64_t> ring_;
  size_t place_ = 0;
  uint64_t pieces_ = 0;
  uint64_t value_ = 0;
  uint64_t leaving_;
  std::vector<uint64_t>& out_;
};

// Shingles of words; eight letters are hashed at a time.
class WordSink {
 public:
  WordSink(int words, std::vector<uint64_t>& out) : window_(words, out) {}

  void letter(uint32_t letter) {
    ++letters;
    if (letter < 0x80) [[likely]] {
      byte(letter);
      return;
    }
    byte(letter >> 16);
    byte((letter >> 8) & 0xff);
    byte(letter & 0xff);
  }

  void end() {
    ++words;
    window_.add(fold(hash_ ^ pending_ ^ kWord, kLength ^ size_));
    hash_ = pending_ = size_ = 0;
  }

  void finish() const { window_.finish(); }

  uint64_t letters = 0;
  uint64_t words = 0;

 private:
  void byte(uint64_t byte) {
    pending_ = (pending_ << 8) | byte;
    if ((++size_ & 7) == 0) {
      hash_ = fold(hash_ ^ pending_ ^ kWord, kBase);
      pending_ = 0;
    }
  }

  Window window_;
  uint64_t hash_ = 0;
  uint64_t pending_ = 0;
  uint64_t size_ = 0;
};

// Shingles of letters, whatever stands between them.
class LetterSink {
 public:
  LetterSink(int letters, std::vector<uint64_t>& out) : window_(letters, out) {}
  void letter(uint32_t letter) { window_.add(fold(letter ^ kLength, kWord)); }
  void end() {}
  void finish() const { window_.finish(); }

 private:
  Window window_;
};

class TextSink {
 public:
  explicit TextSink(std::string& out) : out_(out) {}
  void letter(uint32_t letter) {
    if (ended_) out_.push_back(' ');
    ended_ = false;
    append_utf8(out_, letter);
  }
  void end() { ended_ = true; }

 private:
  std::string& out_;
  bool ended_ = false;
};

}  // namespace

Shingler::Shingler(std::span<const uint32_t> table, const ShingleRules& rules)
    : letters_(table), rules_(rules) {
  MJ_CHECK(rules.words >= 1, "words must be at least 1, got ", rules.words);
  MJ_CHECK(rules.letters >= 1, "letters must be at least 1, got ", rules.letters);
}

void Shingler::of(std::string_view text, std::vector<uint64_t>& shingles) const {
  shingles.clear();
  WordSink words(rules_.words, shingles);
  letters_.read(text, words);
  words.finish();
  const double mean = static_cast<double>(words.letters);
  if (mean <= rules_.longest * static_cast<double>(words.words)) return;
  shingles.clear();
  LetterSink letters(rules_.letters, shingles);
  letters_.read(text, letters);
  letters.finish();
}

std::string Shingler::normalise(std::string_view text) const {
  std::string result;
  result.reserve(text.size());
  TextSink sink(result);
  letters_.read(text, sink);
  return result;
}

double jaccard(std::vector<uint64_t>& a, std::vector<uint64_t>& b) {
  for (auto* set : {&a, &b}) {
    std::sort(set->begin(), set->end());
    set->erase(std::unique(set->begin(), set->end()), set->end());
  }
  size_t both = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    both += a[i] == b[j];
    const bool left = a[i] <= b[j];
    j += b[j] <= a[i];
    i += left;
  }
  const size_t any = a.size() + b.size() - both;
  return any ? static_cast<double>(both) / static_cast<double>(any) : 0.0;
}

}  // namespace mj
