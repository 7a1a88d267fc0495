#include "kernels/adam.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "check.h"
#include "kernels/pool.h"
#include "kernels/tensors.h"

namespace mj {
namespace {

// What a step multiplies by, once for all numbers.
struct AdamFactors {
  float factor, keep1, take1, keep2, take2, root, eps, shrink, step;
};

}  // namespace
}  // namespace mj

#define MJ_CODE "kernels/adam_lanes.h"
#include "kernels/every_machine.h"

namespace mj {
namespace {

AdamFactors factors_of(const AdamRule& rule) {
  const double unbiased = 1 - std::pow(rule.beta2, rule.step);
  const double step = rule.lr / (1 - std::pow(rule.beta1, rule.step));
  const auto fp32 = [](double value) { return static_cast<float>(value); };
  return {.factor = fp32(rule.factor),
          .keep1 = fp32(rule.beta1),
          .take1 = fp32(1 - rule.beta1),
          .keep2 = fp32(rule.beta2),
          .take2 = fp32(1 - rule.beta2),
          .root = fp32(1 / std::sqrt(unbiased)),
          .eps = fp32(rule.eps),
          .shrink = fp32(1 - rule.lr * rule.decay),
          .step = fp32(-step)};
}

void check(const AdamStep& task) {
  const size_t count = task.sizes.size();
  const auto equal = [&](const char* name, size_t found) {
    MJ_CHECK(found == count, name, " must be ", count, " tensors, got ", found);
  };
  equal("parameters", task.parameters.size());
  equal("first", task.first.size());
  equal("second", task.second.size());
  equal("gradients", task.gradients.size());
  if (!task.rounded.empty()) equal("rounded", task.rounded.size());
  MJ_CHECK(task.rule.step >= 1, "step must be at least 1, got ", task.rule.step);
  MJ_CHECK(task.threads >= 1, "threads must be at least 1, got ", task.threads);
  with_dtype(task.dtype, [](auto*) {});
  with_dtype(task.rounded_dtype, [](auto*) {});
}

// A smaller sum is of squares of which fp32 may have lost some.
constexpr double kFaint = 1e-30;

template <typename Squares>
double total_of(const TensorList& list, const Blocks& blocks, const Squares& squares) {
  std::vector<double> sums(static_cast<size_t>(blocks.count()));
  each_piece(list.threads, blocks.count(), [&](int64_t block) {
    sums[static_cast<size_t>(block)] = squares(list, blocks, block);
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

void check(const TensorList& list) {
  MJ_CHECK(list.tensors.size() == list.sizes.size(), "tensors must be ", list.sizes.size(),
           ", got ", list.tensors.size());
  MJ_CHECK(list.threads >= 1, "threads must be at least 1, got ", list.threads);
  with_dtype(list.dtype, [](auto*) {});
}

}  // namespace

void adam_step(const AdamStep& task) {
  check(task);
  const Blocks blocks(task.sizes);
  const auto run = MJ_CHOSEN(adam_block);
  const auto by = factors_of(task.rule);
  each_piece(task.threads, blocks.count(),
             [&](int64_t block) { run(task, by, blocks, block); });
}

double sum_of_squares(const TensorList& list) {
  check(list);
  const Blocks blocks(list.sizes);
  const double total = total_of(list, blocks, MJ_CHOSEN(squares_of_block<false>));
  if (total > kFaint && total < std::numeric_limits<double>::infinity()) return total;
  return total_of(list, blocks, MJ_CHOSEN(squares_of_block<true>));
}

bool scale_all(const TensorList& list, float factor) {
  check(list);
  const Blocks blocks(list.sizes);
  const auto scale = MJ_CHOSEN(scale_block<true>);
  std::atomic<bool> finite{true};
  each_piece(list.threads, blocks.count(), [&](int64_t block) {
    if (!scale(list, factor, blocks, block)) finite = false;
  });
  return finite;
}

bool all_finite(const TensorList& list) {
  check(list);
  const Blocks blocks(list.sizes);
  const auto look = MJ_CHOSEN(scale_block<false>);
  std::atomic<bool> finite{true};
  each_piece(list.threads, blocks.count(), [&](int64_t block) {
    if (finite && !look(list, 1, blocks, block)) finite = false;
  });
  return finite;
}

}  // namespace mj
