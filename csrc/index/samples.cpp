#include "index/samples.h"

#include <algorithm>
#include <limits>

#include "check.h"
#include "machine.h"
#include "threads.h"

namespace mj {
namespace {

constexpr size_t kBlock = 1 << 14;  // visits: their lengths fit the second-level cache
constexpr size_t kAhead = 64;       // visits: as long as a load from memory takes
constexpr size_t kRun = 256;        // visits looked up between two checks

// Say which of `order` or `lengths` is wrong; called when something is.
[[noreturn]] void blame(std::span<const int32_t> lengths, std::span<const int32_t> order,
                        size_t first) {
  for (size_t i = first; i < order.size(); ++i) {
    const auto document = static_cast<uint32_t>(order[i]);
    MJ_CHECK(document < lengths.size(), "order[", i, "] is ", order[i], ", lengths has ",
             lengths.size(), " documents");
    MJ_CHECK(lengths[document] >= 0, "lengths[", document, "] is negative: ", lengths[document]);
  }
  fail("lengths changed while they were read");
}

// The largest document number; a negative one is larger than any.
MJ_EVERY_MACHINE uint32_t largest(const int32_t* order, size_t count) {
  uint32_t most = 0;
  for (size_t i = 0; i < count; ++i) most = std::max(most, static_cast<uint32_t>(order[i]));
  return most;
}

// The sum, or -1 when one is negative.
MJ_EVERY_MACHINE int64_t sum_of(const int32_t* lengths, size_t count) {
  int64_t sum = 0;
  int32_t signs = 0;
  for (size_t i = 0; i < count; ++i) {
    sum += lengths[i];
    signs |= lengths[i];
  }
  return signs < 0 ? -1 : sum;
}

}  // namespace

TokenStream::TokenStream(std::span<const int32_t> lengths, std::span<const int32_t> order,
                         int threads)
    : threads_(threads), visits_(order.size()), lengths_(order.size()) {
  const size_t blocks = (order.size() + kBlock - 1) / kBlock;
  before_.assign(blocks + 1, 0);
  run_pieces(threads, static_cast<int64_t>(blocks), [&](int64_t piece) {
    const auto block = static_cast<size_t>(piece);
    before_[block + 1] = look_up(lengths, order, block);
  });
  for (size_t block = 0; block < blocks; ++block) before_[block + 1] += before_[block];
}

// Note the length of each visit of a block; their sum.
int64_t TokenStream::look_up(std::span<const int32_t> lengths, std::span<const int32_t> order,
                             size_t block) {
  int64_t tokens = 0;
  const size_t end = std::min(order.size(), (block + 1) * kBlock);
  for (size_t run = block * kBlock; run < end; run += kRun) {
    const size_t stop = std::min(end, run + kRun);
    if (largest(&order[run], stop - run) >= lengths.size()) blame(lengths, order, run);
    for (size_t i = run; i < stop; ++i) {
      // a wrong number is met when its turn comes: a prefetch of it does nothing
      __builtin_prefetch(lengths.data() + order[std::min(i + kAhead, end - 1)]);
      lengths_[i] = lengths[static_cast<size_t>(order[i])];
    }
    const int64_t sum = sum_of(&lengths_[run], stop - run);
    if (sum < 0) blame(lengths, order, run);
    tokens += sum;
  }
  return tokens;
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
  MJ_CHECK(visits_ <= static_cast<size_t>(std::numeric_limits<T>::max()), "order has ",
           visits_, " visits, too many for ", 8 * sizeof(T), "-bit starts");
  starts[0] = starts[1] = 0;
  const auto blocks = static_cast<int64_t>(before_.size() - 1);
  run_pieces(threads_, blocks, [&](int64_t block) {
    write_block(seq_len, static_cast<size_t>(block), starts);
  });
}

// Sample k starts at token k * seq_len.  Documents are mostly shorter than samples: whether one
// starts in a document cannot be foretold, so each place is written and kept when it is the right
// one; further starts in the same document are rare.
template <typename T>
void TokenStream::write_block(int64_t seq_len, size_t block, std::span<T> starts) const {
  int64_t passed = before_[block];
  int64_t sample = std::max<int64_t>(1, (passed + seq_len - 1) / seq_len);
  int64_t wanted = sample * seq_len;
  const int64_t last = (before_[block + 1] - 1) / seq_len;  // that starts in this block
  T* start = starts.data() + 2 * sample;
  T* const end = starts.data() + 2 * last + 2;
  for (size_t i = block * kBlock; start < end; ++i) {
    const int64_t after = passed + lengths_[i];
    start[0] = static_cast<T>(i);
    start[1] = static_cast<T>(wanted - passed);
    const bool starts_here = wanted < after;
    start += starts_here ? 2 : 0;
    wanted += starts_here ? seq_len : 0;
    for (; wanted < after && start < end; wanted += seq_len, start += 2) [[unlikely]] {
      start[0] = static_cast<T>(i);
      start[1] = static_cast<T>(wanted - passed);
    }
    passed = after;
  }
}

template void TokenStream::write_starts<int32_t>(int64_t, std::span<int32_t>) const;
template void TokenStream::write_starts<int64_t>(int64_t, std::span<int64_t>) const;

}  // namespace mj
