// Cross-entropy of one row by its numbers: what is added up, and what each adds to the gradient.
#pragma once

#include "cuda/loss.h"

namespace mj {

constexpr float kNone = -INFINITY;

// The sum of exp(x - most) as numbers come, whatever is the largest in the end, and that of x.
struct RunningSum {
  float most = kNone, sum = 0.0f, total = 0.0f;

  // The sum was of exp(x - most); let it be of exp(x - other), where other >= most.
  MJ_BOTH void raise(float other) {
    if (most > kNone) sum *= expf(most - other);
    most = other;
  }

  // Add V numbers; a NaN makes the sum one.
  template <typename Numbers, int V>
  MJ_BOTH void add(const Numbers& x) {
    float largest = x[0];
#pragma unroll
    for (int i = 1; i < V; ++i) largest = x[i] > largest ? x[i] : largest;
    if (largest > most) raise(largest);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float value = x[i];
      sum += value == kNone ? 0.0f : expf(value - most);
      total += value;
    }
  }
};

// What each x of a row adds to its gradient: (exp(x - shift) scale - share) weight dx/dlogit.
struct RowSlope {
  float shift, scale, share, weight, inverse_cap;

  MJ_BOTH RowSlope(const LossRule& rule, float logsum, float weight_)
      : shift(logsum),
        scale(1.0f + 2.0f * rule.z_loss * logsum),
        share(rule.smoothing / static_cast<float>(rule.vocab)),
        weight(weight_),
        inverse_cap(rule.cap > 0.0f ? 1.0f / rule.cap : 0.0f) {}

  // `taken`: 1 - smoothing at the target, 0 elsewhere.
  MJ_BOTH float at(float x, float taken) const {
    const float whole = (expf(x - shift) * scale - share - taken) * weight;
    if (inverse_cap == 0.0f) return whole;  // of -inf bent would be NaN
    const float bent = x * inverse_cap;     // dx/dlogit = 1 - (x / cap)^2
    return whole * (1.0f - bent * bent);
  }
};

MJ_BOTH float capped(float logit, float cap) { return cap * tanhf(logit / cap); }

MJ_BOTH float loss_of(const LossRule& rule, float logsum, float chosen, float total) {
  const float mean = total / static_cast<float>(rule.vocab);
  const float smooth = rule.smoothing == 0.0f ? 0.0f : rule.smoothing * (chosen - mean);
  return logsum - chosen + smooth + rule.z_loss * logsum * logsum;
}

MJ_BOTH bool is_valid(const LossRule& rule, int64_t target) {
  return (target >= 0 && target < rule.vocab) || target == rule.ignored;
}

}  // namespace mj
