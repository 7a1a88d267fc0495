#include "kernels/activation.h"

#include <algorithm>
#include <type_traits>

#include "check.h"
#include "kernels/column_sums.h"
#include "kernels/pool.h"

#define MJ_CODE "kernels/activation_lanes.h"
#include "kernels/every_machine.h"

namespace mj {
namespace {

constexpr int64_t kPiece = 1 << 14;  // numbers that are worth a thread

void check(const ActivationRule& rule) {
  MJ_CHECK(rule.rows >= 0, "rows must not be negative, got ", rule.rows);
  MJ_CHECK(rule.columns >= 1, "columns must be at least 1, got ", rule.columns);
  MJ_CHECK(rule.threads >= 1, "threads must be at least 1, got ", rule.threads);
  const auto number = static_cast<int>(rule.function);
  MJ_CHECK(number >= 0 && number <= 2, "function must be 0 (silu), 1 (gelu) or 2 (gelu_tanh), got ",
           number);
}

Pieces pieces_of(const ActivationRule& rule) {
  return {rule.rows, std::max<int64_t>(1, kPiece / rule.columns)};
}

}  // namespace

void activation_forward(const ActivationForward& task) {
  check(task.rule);
  const auto rows = MJ_CHOSEN(activation_forward_rows);
  const auto pieces = pieces_of(task.rule);
  each_piece(task.rule.threads, pieces.count(),
             [&](int64_t piece) { rows(task, pieces[piece]); });
}

void activation_backward(const ActivationBackward& task) {
  check(task.rule);
  const auto rows = MJ_CHOSEN(activation_backward_rows);
  const auto& rule = task.rule;
  if (task.dbias == nullptr) {
    const auto pieces = pieces_of(rule);
    return each_piece(rule.threads, pieces.count(),
                      [&](int64_t piece) { rows(task, pieces[piece], nullptr); });
  }
  ColumnSums of_bias(rule.rows, (rule.gated ? 2 : 1) * rule.columns);
  const auto& blocks = of_bias.blocks();
  each_piece(rule.threads, blocks.count(),
             [&](int64_t block) { rows(task, blocks[block], of_bias.of(block)); });
  of_bias.write(task.dbias, rule.dtype, rule.threads);
}

}  // namespace mj
