// Second stage of sums over rows: partial sums added in order.
#pragma once

#include "cuda/device.h"

namespace mj {

// Where sums go: the first `columns` of each part to `out`, as many after them to `more` (or null).
struct ColumnSums {
  const float* partial;  // [parts, columns], or [parts, 2 columns] with `more`
  int64_t parts, columns;
  int dtype;  // of out and more
  void* out;
  void* more;
};

void column_sums(const ColumnSums& task, Stream stream);

}  // namespace mj
