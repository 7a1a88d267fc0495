#include "pack/best_fit.h"

#include <bit>
#include <limits>

#include "check.h"

namespace mj {
namespace {

constexpr int32_t kNone = -1;

// A set of numbers from 0 to `most`; each level has a bit for each word of the one below it.
class NumberSet {
 public:
  explicit NumberSet(size_t most) {
    for (size_t words = most / 64 + 1;; words = words / 64 + 1) {
      levels_.emplace_back(words, 0);
      if (words == 1) break;
    }
  }

  void insert(size_t number) {
    for (auto& level : levels_) {
      uint64_t& word = level[number / 64];
      const bool known = word != 0;
      word |= uint64_t{1} << (number % 64);
      if (known) return;
      number /= 64;
    }
  }

  void erase(size_t number) {
    for (auto& level : levels_) {
      uint64_t& word = level[number / 64];
      word &= ~(uint64_t{1} << (number % 64));
      if (word != 0) return;
      number /= 64;
    }
  }

  // The least member that is not below `number`, or -1.
  int64_t at_least(size_t number) const {
    for (size_t height = 0; height < levels_.size(); ++height) {
      const auto& level = levels_[height];
      if (number / 64 >= level.size()) return -1;
      const uint64_t word = level[number / 64] >> (number % 64);
      if (word != 0) return descend(height, number + static_cast<size_t>(std::countr_zero(word)));
      number = number / 64 + 1;
    }
    return -1;
  }

 private:
  int64_t descend(size_t height, size_t number) const {
    while (height-- > 0) {
      number = 64 * number + static_cast<size_t>(std::countr_zero(levels_[height][number]));
    }
    return static_cast<int64_t>(number);
  }

  std::vector<std::vector<uint64_t>> levels_;
};

// Bins by the room they have left; those with equal room lie in a stack.
class OpenBins {
 public:
  explicit OpenBins(size_t capacity) : rooms_(capacity), top_(capacity + 1, kNone) {}

  int32_t count() const { return static_cast<int32_t>(below_.size()); }

  // Put a piece into the bin that it fits best; which one.
  int32_t add(size_t length) {
    const int64_t found = rooms_.at_least(length);
    if (found < 0) {
      below_.push_back(kNone);
      push(count() - 1, top_.size() - 1 - length);
      return count() - 1;
    }
    const auto room = static_cast<size_t>(found);
    const int32_t bin = top_[room];
    top_[room] = below_[static_cast<size_t>(bin)];
    if (top_[room] == kNone) rooms_.erase(room);
    push(bin, room - length);
    return bin;
  }

 private:
  void push(int32_t bin, size_t room) {
    if (room == 0) return;  // full: never asked for again
    below_[static_cast<size_t>(bin)] = top_[room];
    if (top_[room] == kNone) rooms_.insert(room);
    top_[room] = bin;
  }

  NumberSet rooms_;             // room that some bin has
  std::vector<int32_t> top_;    // [capacity + 1], the last bin that came to have this room
  std::vector<int32_t> below_;  // [bins], the one before it
};

// Items in the order of their keys, which are below `keys`, equal ones in their own order.
template <typename Key>
std::vector<int32_t> sorted_by(const Key& key, size_t items, std::vector<int64_t>& first) {
  for (size_t i = 0; i < items; ++i) ++first[key(i) + 1];
  for (size_t k = 1; k < first.size(); ++k) first[k] += first[k - 1];
  std::vector<int64_t> next(first.begin(), first.end() - 1);
  std::vector<int32_t> order(items);
  for (size_t i = 0; i < items; ++i) {
    order[static_cast<size_t>(next[key(i)]++)] = static_cast<int32_t>(i);
  }
  return order;
}

}  // namespace

Packing best_fit(std::span<const int32_t> lengths, int32_t capacity) {
  MJ_CHECK(capacity >= 1, "capacity must be at least 1, got ", capacity);
  MJ_CHECK(lengths.size() <= static_cast<size_t>(std::numeric_limits<int32_t>::max()),
           "lengths has ", lengths.size(), " pieces, at most 2147483647 can be packed");
  for (size_t i = 0; i < lengths.size(); ++i) {
    MJ_CHECK(lengths[i] >= 1 && lengths[i] <= capacity, "lengths[", i, "] is ", lengths[i],
             ", must be from 1 to capacity ", capacity);
  }
  const auto most = static_cast<size_t>(capacity);
  const auto shortfall = [&](size_t i) { return most - static_cast<size_t>(lengths[i]); };
  std::vector<int64_t> ends(most + 1, 0);
  const auto falling = sorted_by(shortfall, lengths.size(), ends);
  OpenBins bins(most);
  std::vector<int32_t> bin_of(lengths.size());
  for (size_t left = 0; left < most; ++left) {
    for (int64_t at = ends[left]; at < ends[left + 1]; ++at) {
      const auto piece = static_cast<size_t>(falling[static_cast<size_t>(at)]);
      bin_of[piece] = bins.add(most - left);
    }
  }
  Packing result;
  result.first.assign(static_cast<size_t>(bins.count()) + 1, 0);
  const auto bin = [&](size_t i) { return static_cast<size_t>(bin_of[i]); };
  result.order = sorted_by(bin, lengths.size(), result.first);
  return result;
}

}  // namespace mj
