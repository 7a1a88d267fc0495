// Where each training sample starts in documents laid end to end.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "scratch.h"

namespace mj {

// The documents `order[0]`, `order[1]`, ... laid end to end and cut every seq_len tokens; a sample
// reads one more, its last target, and what is left after the last whole sample is none.
class TokenStream {
 public:
  // lengths: [documents], tokens of each.  order: [visits], document numbers.
  TokenStream(std::span<const int32_t> lengths, std::span<const int32_t> order, int threads);

  int64_t tokens() const { return before_.back(); }

  int64_t samples(int64_t seq_len) const;

  // Write (place in order, offset in that document) of the start of each sample, and of the
  // end of the last: starts is [samples + 1, 2].
  template <typename T>
  void write_starts(int64_t seq_len, std::span<T> starts) const;

 private:
  template <typename T>
  void write_block(int64_t seq_len, size_t block, std::span<T> starts) const;

  int64_t look_up(std::span<const int32_t> lengths, std::span<const int32_t> order, size_t block);

  int threads_;
  size_t visits_;
  Scratch<int32_t> lengths_;     // [visits]
  std::vector<int64_t> before_;  // [blocks + 1], tokens before each block of visits
};

}  // namespace mj
