#include "kernels/norm.h"

#include <algorithm>
#include <optional>
#include <type_traits>

#include "check.h"
#include "kernels/column_sums.h"
#include "kernels/pool.h"

#define MJ_CODE "kernels/norm_lanes.h"
#include "kernels/every_machine.h"

namespace mj {
namespace {

constexpr int64_t kPiece = 1 << 15;  // numbers that are worth a thread

void check(const NormRule& rule) {
  MJ_CHECK(rule.rows >= 0, "rows must not be negative, got ", rule.rows);
  MJ_CHECK(rule.columns >= 1, "columns must be at least 1, got ", rule.columns);
  MJ_CHECK(rule.threads >= 1, "threads must be at least 1, got ", rule.threads);
}

}  // namespace

void norm_forward(const NormForward& task) {
  check(task.rule);
  const auto rows = MJ_CHOSEN(norm_forward_rows);
  const Pieces pieces{task.rule.rows, std::max<int64_t>(1, kPiece / task.rule.columns)};
  each_piece(task.rule.threads, pieces.count(),
             [&](int64_t piece) { rows(task, pieces[piece]); });
}

void norm_backward(const NormBackward& task) {
  check(task.rule);
  const auto [rows, columns, dtype, eps, offset, centred, threads] = task.rule;
  const auto backward = MJ_CHOSEN(norm_backward_rows);
  ColumnSums of_weight(rows, columns);
  std::optional<ColumnSums> of_bias;
  if (task.dbias != nullptr) of_bias.emplace(rows, columns);
  const auto& blocks = of_weight.blocks();
  each_piece(threads, blocks.count(), [&](int64_t block) {
    backward(task, blocks[block], of_weight.of(block), of_bias ? of_bias->of(block) : nullptr);
  });
  of_weight.write(task.dweight, dtype, threads);
  if (of_bias) of_bias->write(task.dbias, dtype, threads);
}

}  // namespace mj
