// Activations between the two matrices of a feed-forward block. R rows, F columns of the output.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/tile.h"

namespace mj {

// a: what is given, with its bias. Gated: a has 2 F columns, gate then value, y = f(gate) * value;
// else it has F, y = f(a).
enum class Activation : int { silu = 0, gelu = 1, gelu_tanh = 2 };

struct ActivationRule {
  int64_t rows, columns;  // of y
  int dtype;
  Activation function;
  bool gated;
};

struct ActivationForward {
  ActivationRule rule;
  const void* x;     // T [R, F or 2 F]
  const void* bias;  // T [F or 2 F], or null
  void* y;           // T [R, F]
};

struct ActivationBackward {
  ActivationRule rule;
  const void* dy;    // T [R, F]
  const void* x;     // T [R, F or 2 F]
  const void* bias;  // T [F or 2 F], or null
  void* dx;          // T [R, F or 2 F]
  void* dbias;       // T [F or 2 F], or null
  float* partial;    // scratch, of activation_scratch numbers; null without dbias
};

constexpr int64_t activation_scratch(int64_t columns, bool gated) {
  return tile_scratch(columns) * (gated ? 2 : 1);
}

void activation_forward(const ActivationForward& task, Stream stream);
void activation_backward(const ActivationBackward& task, Stream stream);

}  // namespace mj
