#include "copies/runs.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>

#include "check.h"
#include "threads.h"

namespace mj {
namespace {

constexpr size_t kSmall = 48;
constexpr int kDigitBits = 8;
constexpr int kTopBits = 11;

void insertion_sort(std::span<Entry> entries) {
  for (size_t i = 1; i < entries.size(); ++i) {
    const Entry entry = entries[i];
    size_t at = i;
    for (; at > 0 && before(entry, entries[at - 1]); --at) entries[at] = entries[at - 1];
    entries[at] = entry;
  }
}

// Bits from the highest that differs between any two keys down: 64 - common leading ones.
int differing_bits(std::span<const Entry> entries) {
  uint64_t differing = 0;
  for (const auto& entry : entries) differing |= entry.key ^ entries[0].key;
  return 64 - std::countl_zero(differing);
}

// Deal `entries` out by `width` bits below bit `top`, through `room`; starts [2^width + 1].
void deal_out(std::span<Entry> entries, Entry* room, int top, int width, size_t* starts) {
  const int shift = top - width;
  const uint64_t mask = (1ull << width) - 1;
  const size_t buckets = size_t{1} << width;
  std::fill(starts, starts + buckets + 1, 0);
  for (const auto& entry : entries) ++starts[((entry.key >> shift) & mask) + 1];
  std::partial_sum(starts, starts + buckets + 1, starts);
  std::vector<size_t> next(starts, starts + buckets);
  for (const auto& entry : entries) room[next[(entry.key >> shift) & mask]++] = entry;
  std::memcpy(entries.data(), room, entries.size_bytes());
}

void radix_sort(std::span<Entry> entries, Entry* room) {
  if (entries.size() <= kSmall) return insertion_sort(entries);
  const int top = differing_bits(entries);
  if (top == 0) {
    std::sort(entries.begin(), entries.end(), before);
    return;
  }
  const int width = std::min(kDigitBits, top);
  std::array<size_t, (1 << kDigitBits) + 1> starts;
  deal_out(entries, room, top, width, starts.data());
  for (size_t i = 0; i < size_t{1} << width; ++i) {
    const size_t size = starts[i + 1] - starts[i];
    if (size > 1) radix_sort(entries.subspan(starts[i], size), room + starts[i]);
  }
}

}  // namespace

void sort_entries(std::span<Entry> entries, int threads) {
  if (entries.size() <= kSmall) return insertion_sort(entries);
  std::vector<Entry> room(entries.size());
  const int top = differing_bits(entries);
  const int width = std::min(kTopBits, top);
  std::vector<size_t> starts((size_t{1} << width) + 1);
  deal_out(entries, room.data(), top, width, starts.data());
  run_threads(threads, int64_t{1} << width, [&](int, int64_t first, int64_t last) {
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
      const auto run = entries.subspan(starts[i], starts[i + 1] - starts[i]);
      radix_sort(run, room.data() + starts[i]);
    }
  });
}

std::vector<Edge> run_stars(std::span<const Entry> entries) {
  std::vector<Edge> edges;
  size_t first = 0;
  for (size_t i = 1; i < entries.size(); ++i) {
    if (entries[i].key != entries[first].key) {
      first = i;
    } else if (entries[i].number != entries[i - 1].number) {
      edges.push_back({entries[i].number, entries[first].number});
    }
  }
  return edges;
}

double minhash_estimate(size_t matches, size_t width) {
  const double chance = 1.0 / 256;
  const double share = static_cast<double>(matches) / static_cast<double>(width);
  return std::max(0.0, (share - chance) / (1 - chance));
}

double Signatures::nearness(size_t a, size_t b) const {
  const uint8_t* one = bytes.data() + a * width;
  const uint8_t* other = bytes.data() + b * width;
  if (measure == Measure::kEqual) return std::memcmp(one, other, width) == 0;
  size_t count = 0;
  if (measure == Measure::kMinhash) {
    for (size_t i = 0; i < width; ++i) count += one[i] == other[i];
    return minhash_estimate(count, width);
  }
  for (size_t i = 0; i < width; ++i) {
    count += static_cast<size_t>(std::popcount(static_cast<unsigned>(one[i] ^ other[i])));
  }
  return -static_cast<double>(count);
}

namespace {

// The items of one run, joined as they are found near.
class Run {
 public:
  Run(std::span<const Entry> entries, std::span<const int64_t> rows) : entries_(entries), rows_(rows) {
    set_.resize(entries.size());
    std::iota(set_.begin(), set_.end(), size_t{0});
  }

  void join(const Signatures& signatures, double least, size_t most, std::vector<Edge>& edges) {
    size_t sets = 1;
    for (size_t i = 1; i < entries_.size(); ++i) {
      ++sets;
      for (size_t j = 0; j < std::min(i, most) && sets > 1; ++j) {
        const size_t a = find(i);
        const size_t b = find(j);
        if (a == b || !near(signatures, i, j, least)) continue;
        set_[std::max(a, b)] = std::min(a, b);
        --sets;
        if (entries_[i].number != entries_[j].number) {
          edges.push_back({entries_[i].number, entries_[j].number});
        }
      }
    }
  }

 private:
  bool near(const Signatures& signatures, size_t i, size_t j, double least) const {
    if (entries_[i].number == entries_[j].number) return true;
    return signatures.nearness(static_cast<size_t>(rows_[i]), static_cast<size_t>(rows_[j])) >=
           least;
  }

  size_t find(size_t i) {
    while (set_[i] != i) i = set_[i] = set_[set_[i]];
    return i;
  }

  std::span<const Entry> entries_;
  std::span<const int64_t> rows_;
  std::vector<size_t> set_;
};

}  // namespace

std::vector<Edge> near_edges(std::span<const Entry> entries, std::span<const int64_t> rows,
                             const Signatures& signatures, double least, int64_t most) {
  MJ_CHECK(rows.size() == entries.size(), "rows must hold ", entries.size(), " values, got ",
           rows.size());
  MJ_CHECK(most >= 1, "most must be at least 1, got ", most);
  const auto count = static_cast<int64_t>(signatures.bytes.size() / signatures.width);
  for (const int64_t row : rows) {
    MJ_CHECK(row >= 0 && row < count, "rows: ", row, " is none of ", count, " signatures");
  }
  std::vector<Edge> edges;
  for (size_t first = 0, last; first < entries.size(); first = last) {
    for (last = first + 1; last < entries.size() && entries[last].key == entries[first].key;) ++last;
    if (last - first < 2) continue;
    Run run(entries.subspan(first, last - first), rows.subspan(first, last - first));
    run.join(signatures, least, static_cast<size_t>(most), edges);
  }
  return edges;
}

}  // namespace mj
