#include "repeats/suffixes.h"

#include <algorithm>
#include <limits>

#include "check.h"

namespace mj {
namespace {

constexpr std::int32_t kEmpty = -1;

// Whether each suffix is smaller than the one after it (S) or not (L).
class Types {
 public:
  explicit Types(std::size_t size) : bits_((size + 63) / 64) {}
  bool is_small(std::int32_t at) const {
    return bits_[static_cast<std::size_t>(at) / 64] >> (static_cast<std::size_t>(at) % 64) & 1;
  }
  void set_small(std::int32_t at) {
    bits_[static_cast<std::size_t>(at) / 64] |= std::uint64_t{1}
                                                << (static_cast<std::size_t>(at) % 64);
  }
  // The leftmost of a run of S.
  bool is_leftmost(std::int32_t at) const { return at > 0 && is_small(at) && !is_small(at - 1); }

 private:
  std::vector<std::uint64_t> bits_;
};

// SA-IS of a text whose items are 0 .. letters - 1; no sentinel is stored: the end of the text is
// smaller than any item.
template <typename Item>
class Sorter {
 public:
  Sorter(const Item* text, std::int32_t size, std::int32_t letters, std::int32_t* suffixes)
      : text_(text), size_(size), letters_(letters), suffixes_(suffixes), types_(size_of(size)) {}

  void sort() {
    if (size_ == 0) return;
    find_types();
    count();
    sort_leftmost_stretches();
    const std::int32_t found = gather_leftmost();
    const std::int32_t names = name_stretches(found);
    if (names < found) {
      sort_names(found, names);
    } else {
      for (std::int32_t i = 0; i < found; ++i) suffixes_[names_[i]] = i;
    }
    place_leftmost(found);
    induce();
  }

 private:
  static std::size_t size_of(std::int32_t value) { return static_cast<std::size_t>(value); }

  void find_types() {  // the last item is L: the end comes after it, and is smaller
    for (std::int32_t i = size_ - 2; i >= 0; --i) {
      const bool small = text_[i] < text_[i + 1] || (text_[i] == text_[i + 1] && types_.is_small(i + 1));
      if (small) types_.set_small(i);
    }
  }

  void count() {
    counts_.assign(size_of(letters_), 0);
    for (std::int32_t i = 0; i < size_; ++i) ++counts_[size_of(static_cast<std::int32_t>(text_[i]))];
  }

  void to_starts() {
    buckets_.resize(size_of(letters_));
    std::int32_t sum = 0;
    for (std::size_t letter = 0; letter < buckets_.size(); ++letter) {
      buckets_[letter] = sum;
      sum += counts_[letter];
    }
  }

  void to_ends() {
    buckets_.resize(size_of(letters_));
    std::int32_t sum = 0;
    for (std::size_t letter = 0; letter < buckets_.size(); ++letter) {
      sum += counts_[letter];
      buckets_[letter] = sum;
    }
  }

  std::int32_t& bucket(std::int32_t at) {
    return buckets_[size_of(static_cast<std::int32_t>(text_[at]))];
  }

  // Sorts all suffixes from those leftmost S that stand in place.
  void induce() {
    to_starts();
    suffixes_[bucket(size_ - 1)++] = size_ - 1;  // the last item precedes the end
    for (std::int32_t i = 0; i < size_; ++i) {
      const std::int32_t at = suffixes_[i];
      if (at > 0 && !types_.is_small(at - 1)) suffixes_[bucket(at - 1)++] = at - 1;
    }
    to_ends();
    for (std::int32_t i = size_ - 1; i >= 0; --i) {
      const std::int32_t at = suffixes_[i];
      if (at > 0 && types_.is_small(at - 1)) suffixes_[--bucket(at - 1)] = at - 1;
    }
  }

  void sort_leftmost_stretches() {
    std::fill_n(suffixes_, size_, kEmpty);
    to_ends();
    for (std::int32_t i = size_ - 1; i > 0; --i) {
      if (types_.is_leftmost(i)) suffixes_[--bucket(i)] = i;
    }
    induce();
  }

  // Puts the leftmost S, in the order found, at the beginning of the array.
  std::int32_t gather_leftmost() {
    std::int32_t found = 0;
    for (std::int32_t i = 0; i < size_; ++i) {
      if (types_.is_leftmost(suffixes_[i])) suffixes_[found++] = suffixes_[i];
    }
    return found;
  }

  // Gives equal stretches (from one leftmost S to the next) equal names, in order. The names stand
  // in text order in the last `found` places; names_ points there.
  std::int32_t name_stretches(std::int32_t found) {
    std::fill(suffixes_ + found, suffixes_ + size_, kEmpty);
    std::int32_t names = 0;
    std::int32_t before = kEmpty;
    for (std::int32_t i = 0; i < found; ++i) {
      const std::int32_t at = suffixes_[i];
      if (before == kEmpty || !equal_stretches(before, at)) ++names;
      before = at;
      suffixes_[found + at / 2] = names - 1;  // leftmost S are never neighbours
    }
    std::int32_t place = size_ - 1;
    for (std::int32_t i = size_ - 1; i >= found; --i) {
      if (suffixes_[i] != kEmpty) suffixes_[place--] = suffixes_[i];
    }
    names_ = suffixes_ + size_ - found;
    return names;
  }

  bool equal_stretches(std::int32_t a, std::int32_t b) const {
    for (std::int32_t i = 0;; ++i) {
      if (a + i == size_ || b + i == size_) return false;  // only one reaches the end
      if (text_[a + i] != text_[b + i]) return false;
      if (types_.is_small(a + i) != types_.is_small(b + i)) return false;
      if (i == 0) continue;
      const bool ends = types_.is_leftmost(a + i);
      if (ends != types_.is_leftmost(b + i)) return false;
      if (ends) return true;
    }
  }

  void sort_names(std::int32_t found, std::int32_t names) {
    const std::vector<std::int32_t> reduced(names_, names_ + found);
    Sorter<std::int32_t>(reduced.data(), found, names, suffixes_).sort();
  }

  // The sorted leftmost S, from the order of the names at the beginning of the array.
  void place_leftmost(std::int32_t found) {
    std::vector<std::int32_t> starts;
    starts.reserve(size_of(found));
    for (std::int32_t i = 1; i < size_; ++i) {
      if (types_.is_leftmost(i)) starts.push_back(i);
    }
    for (std::int32_t i = 0; i < found; ++i) suffixes_[i] = starts[size_of(suffixes_[i])];
    std::fill(suffixes_ + found, suffixes_ + size_, kEmpty);
    to_ends();
    for (std::int32_t i = found - 1; i >= 0; --i) {
      const std::int32_t at = suffixes_[i];
      suffixes_[i] = kEmpty;
      suffixes_[--bucket(at)] = at;
    }
  }

  const Item* text_;
  std::int32_t size_, letters_;
  std::int32_t* suffixes_;
  std::int32_t* names_ = nullptr;
  Types types_;
  std::vector<std::int32_t> counts_, buckets_;
};

}  // namespace

std::vector<std::int32_t> suffix_array(std::span<const std::uint8_t> text) {
  MJ_CHECK(text.size() < std::numeric_limits<std::int32_t>::max() - 1, "text: found ", text.size(),
           " bytes, must be below 2^31 - 2");
  std::vector<std::int32_t> suffixes(text.size());
  Sorter<std::uint8_t>(text.data(), static_cast<std::int32_t>(text.size()), 256, suffixes.data())
      .sort();
  return suffixes;
}

}  // namespace mj
