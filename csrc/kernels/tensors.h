// Many tensors as one run of numbers: lists of parameters, gradients and moments.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "check.h"
#include "kernels/pool.h"

namespace mj {

// Tensors of the given sizes laid end to end and cut into blocks, by the sizes alone: a block may
// hold hundreds of small tensors, or a part of a large one.
class Blocks {
 public:
  explicit Blocks(std::span<const int64_t> sizes) : sizes_(sizes) {
    starts_.reserve(sizes.size() + 1);
    int64_t end = 0;
    for (const int64_t size : sizes) {
      MJ_CHECK(size >= 0, "sizes must not be negative, got ", size);
      starts_.push_back(end);
      end += (size + kLine - 1) / kLine * kLine;
    }
    starts_.push_back(end);
    numbers_ = end;
  }

  int64_t count() const { return pieces().count(); }

  // Call work(tensor, first, last) for the parts of tensors that a block holds, in order.
  template <typename Work>
  void each(int64_t block, const Work& work) const {
    const auto [first, last] = pieces()[block];
    const auto after = std::upper_bound(starts_.begin(), starts_.end(), first);
    for (auto tensor = static_cast<size_t>(after - starts_.begin()) - 1;
         tensor < sizes_.size() && starts_[tensor] < last; ++tensor) {
      const int64_t start = starts_[tensor];
      const int64_t from = std::max<int64_t>(0, first - start);
      const int64_t to = std::min(sizes_[tensor], last - start);
      if (from < to) work(tensor, from, to);
    }
  }

 private:
  static constexpr int64_t kLine = 64;        // a tensor is cut where cache lines end
  static constexpr int64_t kBlock = 1 << 15;  // numbers that are worth a thread

  Pieces pieces() const { return {numbers_, kBlock}; }

  std::span<const int64_t> sizes_;
  std::vector<int64_t> starts_;
  int64_t numbers_ = 0;
};

}  // namespace mj
