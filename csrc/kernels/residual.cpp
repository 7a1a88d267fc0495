#include "kernels/residual.h"

#include <algorithm>
#include <type_traits>

#include "check.h"
#include "kernels/column_sums.h"
#include "kernels/pool.h"

#define MJ_CODE "kernels/residual_lanes.h"
#include "kernels/every_machine.h"

namespace mj {
namespace {

constexpr int64_t kPiece = 1 << 15;  // numbers that are worth a thread

void check(const ResidualRule& rule) {
  MJ_CHECK(rule.rows >= 0, "rows must not be negative, got ", rule.rows);
  MJ_CHECK(rule.columns >= 1, "columns must be at least 1, got ", rule.columns);
  MJ_CHECK(rule.threads >= 1, "threads must be at least 1, got ", rule.threads);
}

}  // namespace

void add_residual(const ResidualForward& task) {
  check(task.rule);
  const auto rows = MJ_CHOSEN(add_residual_rows);
  const Pieces pieces{task.rule.rows, std::max<int64_t>(1, kPiece / task.rule.columns)};
  each_piece(task.rule.threads, pieces.count(), [&](int64_t piece) { rows(task, pieces[piece]); });
}

void bias_gradient(const ResidualRule& rule, const void* dy, void* dbias) {
  check(rule);
  const auto rows = MJ_CHOSEN(bias_gradient_rows);
  ColumnSums sums(rule.rows, rule.columns);
  const auto& blocks = sums.blocks();
  each_piece(rule.threads, blocks.count(),
             [&](int64_t block) { rows(rule, dy, blocks[block], sums.of(block)); });
  sums.write(dbias, rule.dtype, rule.threads);
}

}  // namespace mj
