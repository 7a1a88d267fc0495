#include "index/samples.h"

#include <algorithm>
#include <limits>

#include "check.h"
#include "threads.h"

namespace mj {
namespace {

constexpr size_t kBlock = 1 << 14;  // visits: their lengths fit the second-level cache
constexpr size_t kAhead = 64;       // visits: as long as a load from memory takes

}  // namespace

TokenStream::TokenStream(std::span<const int32_t> lengths, std::span<const int32_t> order,
                         int threads)
    : threads_(threads), lengths_(order.size()) {
  const size_t blocks = (order.size() + kBlock - 1) / kBlock;
  before_.assign(blocks + 1, 0);
  run_threads(threads, static_cast<int64_t>(blocks), [&](int, int64_t first, int64_t last) {
    for (auto block = static_cast<size_t>(first); block < static_cast<size_t>(last); ++block) {
      int64_t tokens = 0;
      const size_t end = std::min(order.size(), (block + 1) * kBlock);
      for (size_t i = block * kBlock; i < end; ++i) {
        // a wrong number is met when its turn comes: a prefetch of it does nothing
        if (i + kAhead < end) __builtin_prefetch(lengths.data() + order[i + kAhead]);
        const auto document = static_cast<uint32_t>(order[i]);
        MJ_CHECK(document < lengths.size(), "order[", i, "] is ", order[i], ", lengths has ",
                 lengths.size(), " documents");
        const int32_t length = lengths[document];
        MJ_CHECK(length >= 0, "lengths[", document, "] is negative: ", length);
        lengths_[i] = length;
        tokens += length;
      }
      before_[block + 1] = tokens;
    }
  });
  for (size_t block = 0; block < blocks; ++block) before_[block + 1] += before_[block];
}

int64_t TokenStream::samples(int64_t seq_len) const {
  MJ_CHECK(seq_len >= 1 && seq_len < std::numeric_limits<int32_t>::max(),
           "seq_len must be from 1 to 2147483646, got ", seq_len);
  return std::max<int64_t>(0, tokens() - 1) / seq_len;
}

template <typename T>
void TokenStream::write_starts(int64_t seq_len, std::span<T> starts) const {
  const int64_t count = samples(seq_len);
  MJ_CHECK(starts.size() == 2 * static_cast<size_t>(count + 1), "starts has ", starts.size(),
           " numbers, needs ", 2 * (count + 1));
  MJ_CHECK(lengths_.size() <= static_cast<size_t>(std::numeric_limits<T>::max()), "order has ",
           lengths_.size(), " visits, too many for ", 8 * sizeof(T), "-bit starts");
  starts[0] = starts[1] = 0;
  const auto blocks = static_cast<int64_t>(before_.size() - 1);
  run_threads(threads_, blocks, [&](int, int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      write_block(seq_len, static_cast<size_t>(block), starts);
    }
  });
}

// Sample k starts at token k * seq_len.
template <typename T>
void TokenStream::write_block(int64_t seq_len, size_t block, std::span<T> starts) const {
  int64_t passed = before_[block];
  const int64_t count = static_cast<int64_t>(starts.size() / 2) - 1;
  int64_t sample = std::max<int64_t>(1, (passed + seq_len - 1) / seq_len);
  int64_t wanted = sample * seq_len;
  const size_t end = std::min(lengths_.size(), (block + 1) * kBlock);
  for (size_t i = block * kBlock; i < end && sample <= count; ++i) {
    const int64_t after = passed + lengths_[i];
    for (; wanted < after && sample <= count; ++sample, wanted += seq_len) {
      T* start = &starts[2 * static_cast<size_t>(sample)];
      start[0] = static_cast<T>(i);
      start[1] = static_cast<T>(wanted - passed);
    }
    passed = after;
  }
}

template void TokenStream::write_starts<int32_t>(int64_t, std::span<int32_t>) const;
template void TokenStream::write_starts<int64_t>(int64_t, std::span<int64_t>) const;

}  // namespace mj
