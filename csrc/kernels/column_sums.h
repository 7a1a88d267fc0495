// Gradients of weights: sums over rows, of blocks first.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/dtype.h"
#include "kernels/pool.h"

namespace mj {

// Rows in blocks that depend on the number of rows alone, 64 at most; fp32 sums of each.
class ColumnSums {
 public:
  ColumnSums(int64_t rows, int64_t columns)
      : blocks_{rows, std::max<int64_t>(16, (rows + 63) / 64)},
        columns_(columns),
        sums_(new float[static_cast<size_t>(blocks_.count() * columns)]) {}

  const Pieces& blocks() const { return blocks_; }
  float* of(int64_t block) { return sums_.get() + block * columns_; }

  // The sum of all blocks in order, to T [columns].
  template <typename T>
  void write(T* to, int threads) const {
    const Pieces parts{columns_, 1024};
    each_piece(threads, parts.count(), [&](int64_t piece) {
      for (int64_t i = parts[piece].first; i < parts[piece].last; ++i) {
        float sum = 0;
        for (int64_t block = 0; block < blocks_.count(); ++block) sum += sums_[at(block, i)];
        to[i] = from_float<T>(sum);
      }
    });
  }

  void write(void* to, int dtype, int threads) const {
    with_dtype(dtype, [&](auto* type) { write(static_cast<decltype(type)>(to), threads); });
  }

 private:
  size_t at(int64_t block, int64_t i) const { return static_cast<size_t>(block * columns_ + i); }

  Pieces blocks_;
  int64_t columns_;
  std::unique_ptr<float[]> sums_;
};

}  // namespace mj
