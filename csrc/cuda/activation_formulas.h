// Activation functions and their slopes at one number.
#pragma once

#include "cuda/activation.h"

namespace mj {

struct ValueSlope {
  float value, slope;
};

// 1 / (1 + exp(-x)); 0 where exp(-x) is beyond fp32, or nearly. On a GPU within 2 units in the last
// place: an exact division takes as long as all the rest.
MJ_BOTH float logistic(float x) {
  const float whole = 1.0f + expf(-x);
#ifdef __CUDA_ARCH__
  return __fdividef(1.0f, whole);
#else
  return 1.0f / whole;
#endif
}

// f(x) and f'(x):
// silu       x s,  s = logistic(x)                        s + x s (1 - s)
// gelu       x P,  P = (1 + erf(x / sqrt 2)) / 2          P + x exp(-x^2 / 2) / sqrt(2 pi)
// gelu_tanh  x (1 + tanh u) / 2 = x s,  s = logistic(2 u) s + 2 x s (1 - s) u'
//            u = sqrt(2 / pi) (x + 0.044715 x^3)
MJ_BOTH ValueSlope activated(Activation function, float x) {
  if (function == Activation::gelu) {
    const float share = 0.5f * (1.0f + erff(x * 0.70710678118654752f));
    return {x * share, share + x * 0.39894228040143268f * expf(-0.5f * x * x)};
  }
  if (function == Activation::silu) {
    const float share = logistic(x);
    return {x * share, share + x * share * (1.0f - share)};
  }
  const float root = 0.79788456080286536f;
  const float square = 0.044715f * x * x;
  const float share = logistic(2.0f * root * (x + square * x));
  const float inner = root * (1.0f + 3.0f * square);
  // x^3 may be infinite where share is 0 or 1 already
  const float rest = share * (1.0f - share);
  return {x * share, rest > 0.0f ? share + 2.0f * x * rest * inner : share};
}

}  // namespace mj
