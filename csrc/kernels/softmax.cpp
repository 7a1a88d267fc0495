#include "kernels/softmax.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <type_traits>

#include "check.h"
#include "kernels/pool.h"

#define MJ_CODE "kernels/softmax_lanes.h"
#include "kernels/every_machine.h"

namespace mj {
namespace {

constexpr int64_t kPiece = 1 << 14;  // numbers that are worth a thread

Pieces pieces_of(const SoftmaxRule& rule) {
  const auto [sequences, heads, queries, keys] = rule.shape;
  const auto least = std::min({sequences, heads, queries, keys});
  MJ_CHECK(least >= 0, "sizes must not be negative, got ", least);
  MJ_CHECK(rule.threads >= 1, "threads must be at least 1, got ", rule.threads);
  MJ_CHECK(rule.cap >= 0, "cap must not be negative, got ", rule.cap);
  return {sequences * heads * queries, std::max<int64_t>(1, kPiece / std::max<int64_t>(1, keys))};
}

}  // namespace

void softmax_forward(const SoftmaxRule& rule, const void* x, void* w) {
  const auto pieces = pieces_of(rule);
  const auto rows = MJ_CHOSEN(softmax_forward_rows);
  each_piece(rule.threads, pieces.count(), [&](int64_t piece) { rows(rule, pieces[piece], x, w); });
}

void softmax_backward(const SoftmaxRule& rule, const void* dw, const void* x, const void* w,
                      void* dx) {
  const auto pieces = pieces_of(rule);
  const auto rows = MJ_CHOSEN(softmax_backward_rows);
  each_piece(rule.threads, pieces.count(),
             [&](int64_t piece) { rows(rule, pieces[piece], dw, x, w, dx); });
}

}  // namespace mj
