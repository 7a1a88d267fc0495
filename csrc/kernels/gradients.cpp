#include "kernels/gradients.h"

#include <algorithm>
#include <type_traits>

#include "check.h"
#include "kernels/pool.h"

#define MJ_CODE "kernels/gradients_lanes.h"
#include "kernels/every_machine.h"

namespace mj {
namespace {

constexpr int64_t kPiece = 1 << 15;  // numbers that are worth a thread

}  // namespace

void add_gradient(const GradientRule& rule, const void* gradient, float* sum) {
  MJ_CHECK(rule.numbers >= 0, "numbers must not be negative, got ", rule.numbers);
  MJ_CHECK(rule.threads >= 1, "threads must be at least 1, got ", rule.threads);
  with_dtype(rule.dtype, [](auto*) {});
  const auto add = MJ_CHOSEN(add_stretch);
  const Pieces pieces{rule.numbers, kPiece};
  each_piece(rule.threads, pieces.count(),
             [&](int64_t piece) { add(rule, gradient, sum, pieces[piece]); });
}

}  // namespace mj
