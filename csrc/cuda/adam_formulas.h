// One number of AdamW.
#pragma once

#include <cmath>

#include "cuda/adam.h"

namespace mj {

// The numbers of a step, as each parameter takes them; powers in fp64 before they are rounded.
struct AdamNumbers {
  float keep1, keep2;  // 1 - beta1, 1 - beta2
  float shrink;        // 1 - lr decay
  float rate;          // lr / (1 - beta1^step)
  float unbias2;       // 1 / sqrt(1 - beta2^step)
  float eps, factor;
};

inline AdamNumbers numbers_of(const AdamRule& rule) {
  const double unbias1 = 1.0 - std::pow(rule.beta1, rule.step);
  const double unbias2 = 1.0 - std::pow(rule.beta2, rule.step);
  return {static_cast<float>(1.0 - rule.beta1),        static_cast<float>(1.0 - rule.beta2),
          static_cast<float>(1.0 - rule.lr * rule.decay), static_cast<float>(rule.lr / unbias1),
          static_cast<float>(1.0 / std::sqrt(unbias2)),   static_cast<float>(rule.eps),
          static_cast<float>(rule.factor)};
}

struct AdamState {
  float parameter, first, second;
};

MJ_BOTH AdamState moved(const AdamNumbers& rule, AdamState state, float gradient) {
  state.first += rule.keep1 * (gradient - state.first);
  state.second += rule.keep2 * (gradient * gradient - state.second);
  const float size = sqrtf(state.second) * rule.unbias2 + rule.eps;
  state.parameter = rule.shrink * state.parameter - rule.rate * (state.first / size);
  return state;
}

MJ_BOTH bool is_finite(float value) { return value - value == 0.0f; }

}  // namespace mj
