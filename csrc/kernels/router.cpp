#include <algorithm>
#include <limits>
#include <memory>
#include <type_traits>

#include "check.h"
#include "kernels/experts.h"
#include "kernels/pool.h"

#define MJ_CODE "kernels/router_lanes.h"
#include "kernels/every_machine.h"

namespace mj {
namespace {

constexpr int64_t kPiece = 1 << 13;  // numbers that are worth a thread

void check(const RouterRule& rule) {
  MJ_CHECK(rule.tokens >= 0, "tokens must not be negative, got ", rule.tokens);
  MJ_CHECK(rule.experts >= 1, "experts must be at least 1, got ", rule.experts);
  MJ_CHECK(rule.threads >= 1, "threads must be at least 1, got ", rule.threads);
  MJ_CHECK(rule.groups >= 1 && rule.experts % rule.groups == 0, "groups must divide ", rule.experts,
           " experts, got ", rule.groups);
  MJ_CHECK(rule.groups_chosen >= 1 && rule.groups_chosen <= rule.groups,
           "groups_chosen must be 1 to ", rule.groups, ", got ", rule.groups_chosen);
  const int64_t size = rule.experts / rule.groups, most = rule.groups_chosen * size;
  MJ_CHECK(rule.judges >= 1 && rule.judges <= std::min<int64_t>(2, size),
           "judges must be 1, or 2 of groups of 2 and more, got ", rule.judges);
  MJ_CHECK(rule.visits >= 1 && rule.visits <= most, "visits must be 1 to ", most, ", got ",
           rule.visits);
}

Pieces pieces_of(const RouterRule& rule) {
  return {rule.tokens, std::max<int64_t>(1, kPiece / rule.experts)};
}

}  // namespace

void router_forward(const RouterForward& task) {
  check(task.rule);
  const auto rows = MJ_CHOSEN(choose_expert_rows);
  const auto pieces = pieces_of(task.rule);
  each_piece(task.rule.threads, pieces.count(), [&](int64_t piece) { rows(task, pieces[piece]); });
}

void router_backward(const RouterBackward& task) {
  check(task.rule);
  const int64_t visits = task.rule.tokens * task.rule.visits;
  for (int64_t n = 0; n < visits; ++n) {
    MJ_CHECK(task.chosen[n] >= 0 && task.chosen[n] < task.rule.experts, "chosen must be below ",
             task.rule.experts, ", got ", task.chosen[n]);
  }
  const auto rows = MJ_CHOSEN(slope_expert_rows);
  const auto pieces = pieces_of(task.rule);
  each_piece(task.rule.threads, pieces.count(), [&](int64_t piece) { rows(task, pieces[piece]); });
}

}  // namespace mj
