#include "kernels/loss.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "check.h"
#include "kernels/pool.h"

namespace mj {
namespace {

// Room for a row in fp32, which stays in the cache of its thread.
float* near_row(int64_t columns) {
  thread_local std::vector<float> row;
  if (static_cast<int64_t>(row.size()) < columns) row.resize(static_cast<size_t>(columns));
  return row.data();
}

}  // namespace
}  // namespace mj

#define MJ_CODE "kernels/loss_lanes.h"
#include "kernels/every_machine.h"

namespace mj {
namespace {

constexpr int64_t kPiece = 1 << 15;  // numbers that are worth a thread

void check(const LossRule& rule, const int64_t* targets) {
  MJ_CHECK(rule.rows >= 0, "rows must not be negative, got ", rule.rows);
  MJ_CHECK(rule.columns >= 1, "columns must be at least 1, got ", rule.columns);
  MJ_CHECK(rule.threads >= 1, "threads must be at least 1, got ", rule.threads);
  for (int64_t row = 0; row < rule.rows; ++row) {
    const int64_t target = targets[row];
    MJ_CHECK((target >= 0 && target < rule.vocab) || target == rule.ignored, "targets[", row,
             "] is ", target, ", not one of ", rule.vocab);
  }
}

template <typename Work>
void each_rows(const LossRule& rule, const Work& work) {
  const Pieces pieces{rule.rows, std::max<int64_t>(1, kPiece / rule.columns)};
  each_piece(rule.threads, pieces.count(), [&](int64_t piece) { work(pieces[piece]); });
}

}  // namespace

void loss_parts(const LossParts& task) {
  check(task.rule, task.targets);
  const auto rows = MJ_CHOSEN(loss_parts_rows);
  each_rows(task.rule, [&](Stretch stretch) { rows(task, stretch); });
}

void loss_gradient(const LossGradient& task) {
  check(task.rule, task.targets);
  const auto rows = MJ_CHOSEN(loss_gradient_rows);
  each_rows(task.rule, [&](Stretch stretch) { rows(task, stretch); });
}

void loss_whole(const LossWhole& task) {
  check(task.rule, task.targets);
  const auto rows = MJ_CHOSEN(loss_whole_rows);
  each_rows(task.rule, [&](Stretch stretch) { rows(task, stretch); });
}

}  // namespace mj
