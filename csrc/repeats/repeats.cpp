#include "repeats/repeats.h"

#include <algorithm>
#include <cstring>

#include "check.h"
#include "repeats/suffixes.h"
#include "threads.h"

namespace mj {
namespace {

class Bits {
 public:
  explicit Bits(std::int64_t size) : words_(static_cast<std::size_t>(size + 63) / 64) {}
  bool operator[](std::int64_t at) const { return words_[word(at)] >> (at % 64) & 1; }
  void set(std::int64_t at) { words_[word(at)] |= std::uint64_t{1} << (at % 64); }
  std::size_t words() const { return words_.size(); }

 private:
  static std::size_t word(std::int64_t at) { return static_cast<std::size_t>(at / 64); }
  std::vector<std::uint64_t> words_;
};

// Starts of windows that lie within one document.
Bits whole_windows(std::span<const std::int64_t> ends, std::int64_t size, std::int64_t length) {
  Bits whole(size);
  std::int64_t start = 0;
  for (const std::int64_t end : ends) {
    MJ_CHECK(end >= start && end <= size, "ends: found ", end, " after ", start, ", of ", size,
             " bytes; must rise");
    for (std::int64_t at = start; at + length <= end; ++at) whole.set(at);
    start = end;
  }
  MJ_CHECK(start == size, "ends: the last is ", start, ", the text has ", size, " bytes");
  return whole;
}

// Of the suffixes in order, which have their first `length` bytes from the one before.
Bits like_the_one_before(std::span<const std::uint8_t> text,
                         const std::vector<std::int32_t>& suffixes, std::int64_t length,
                         int threads) {
  Bits like(static_cast<std::int64_t>(suffixes.size()));
  const auto size = static_cast<std::int64_t>(text.size());
  // each thread has words of its own
  run_threads(threads, static_cast<std::int64_t>(like.words()), [&](int, std::int64_t a, std::int64_t b) {
    const std::int64_t last = std::min(b * 64, size);
    for (std::int64_t i = std::max<std::int64_t>(a * 64, 1); i < last; ++i) {
      const std::int64_t one = suffixes[static_cast<std::size_t>(i - 1)];
      const std::int64_t two = suffixes[static_cast<std::size_t>(i)];
      if (std::max(one, two) + length > size) continue;
      if (std::memcmp(&text[static_cast<std::size_t>(one)], &text[static_cast<std::size_t>(two)],
                      static_cast<std::size_t>(length)) == 0) {
        like.set(i);
      }
    }
  });
  return like;
}

}  // namespace

std::vector<Stretch> repeated_stretches(std::span<const std::uint8_t> text,
                                        std::span<const std::int64_t> ends, std::int64_t length,
                                        int threads) {
  MJ_CHECK(length >= 1, "length must be at least 1, got ", length);
  const auto size = static_cast<std::int64_t>(text.size());
  const Bits whole = whole_windows(ends, size, length);
  Bits again(size);
  {
    const std::vector<std::int32_t> suffixes = suffix_array(text);
    const Bits like = like_the_one_before(text, suffixes, length, threads);
    for (std::int64_t i = 0, end; i < size; i = end) {
      std::int64_t earliest = size, count = 0;
      for (end = i; end == i || (end < size && like[end]); ++end) {
        const std::int64_t at = suffixes[static_cast<std::size_t>(end)];
        if (!whole[at]) continue;
        ++count;
        earliest = std::min(earliest, at);
      }
      if (count < 2) continue;
      for (std::int64_t j = i; j < end; ++j) {
        const std::int64_t at = suffixes[static_cast<std::size_t>(j)];
        if (whole[at] && at != earliest) again.set(at);
      }
    }
  }
  std::vector<Stretch> found;
  std::int64_t cut_until = 0;
  for (std::int64_t at = 0; at < size; ++at) {
    if (again[at]) cut_until = at + length;
    if (at >= cut_until) continue;
    if (!found.empty() && found.back().end == at) {
      ++found.back().end;
    } else {
      found.push_back({at, at + 1});
    }
  }
  return found;
}

}  // namespace mj
