#include "cuda/column_sums.h"

#include "cuda/numbers.h"

namespace mj {

namespace {

constexpr int kColumns = 32;  // of a block: one a lane
constexpr int kParts = 16;    // that a block adds at a time: one a warp

// out_h = sum_p partial_ph, p parts, h columns: each warp adds the parts w, w + 16, w + 32, ... in
// fp32, then the sums of the warps are added one after the other.
template <typename T>
__global__ void MJ_BOUNDS(kColumns * kParts, 1) add_parts(ColumnSums task) {
  __shared__ float sums[kParts][kColumns];
  const int lane = static_cast<int>(threadIdx.x) % kColumns;
  const int warp = static_cast<int>(threadIdx.x) / kColumns;
  const int64_t width = task.more != nullptr ? 2 * task.columns : task.columns;
  const int64_t column = int64_t{blockIdx.x} * kColumns + lane;
  float sum = 0.0f;
  if (column < width) {
#pragma unroll 8
    for (int64_t part = warp; part < task.parts; part += kParts) {
      sum += task.partial[part * width + column];
    }
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= width) return;
  for (int other = 1; other < kParts; ++other) sum += sums[other][lane];
  if (column < task.columns) {
    static_cast<T*>(task.out)[column] = narrow<T>(sum);
  } else {
    static_cast<T*>(task.more)[column - task.columns] = narrow<T>(sum);
  }
}

}  // namespace

void column_sums(const ColumnSums& task, Stream stream) {
  if (task.columns == 0) return;
  with_dtype(task.dtype, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const int64_t width = task.more != nullptr ? 2 * task.columns : task.columns;
    const Grid grid{(width + kColumns - 1) / kColumns};
    launch("column_sums", add_parts<T>, grid, kColumns * kParts, 0, stream, task);
  });
}

}  // namespace mj
