#include "kernels/rope.h"

#include <algorithm>
#include <type_traits>

#include "check.h"
#include "kernels/pool.h"

#define MJ_CODE "kernels/rope_lanes.h"
#include "kernels/every_machine.h"

namespace mj {
namespace {

constexpr int64_t kPiece = 1 << 15;  // numbers that are worth a thread

void check(const Rope& task) {
  const auto least = std::min({task.positions, task.sequences, task.heads, task.columns});
  MJ_CHECK(least >= 0, "sizes must not be negative, got ", least);
  MJ_CHECK(task.threads >= 1, "threads must be at least 1, got ", task.threads);
  MJ_CHECK(task.turned % 2 == 0 && task.turned >= 0 && task.turned <= task.columns,
           "turned must be even and at most ", task.columns, ", got ", task.turned);
}

}  // namespace

void rope(const Rope& task) {
  check(task);
  const auto rows = MJ_CHOSEN(rope_rows);
  const int64_t width = std::max<int64_t>(1, task.heads * task.columns);
  const Pieces pieces{task.positions * task.sequences, std::max<int64_t>(1, kPiece / width)};
  each_piece(task.threads, pieces.count(), [&](int64_t piece) { rows(task, pieces[piece]); });
}

}  // namespace mj
