// Cross-entropy of rows of logits, and its gradient in their place. R rows, V columns that are here;
// T is fp32, bf16 or fp16.
#pragma once

#include <cstdint>

#include "cuda/device.h"

namespace mj {

// l = log(sum_j exp(x_j)) over the columns of all ranks
// loss = l - (1 - smoothing) x_target - smoothing mean_j(x_j) + z_loss l^2; 0 where the target is `ignored`
struct LossRule {
  int64_t rows, columns;
  int64_t first;    // id of column 0: a vocabulary may be cut over ranks
  int64_t vocab;    // columns of all ranks
  int64_t ignored;  // a target that does not count
  int dtype;        // of the logits
  float cap;        // x = cap tanh(logit / cap), which takes the place of the logit; 0: x is the logit
  float smoothing, z_loss;
};

// What a rank knows of each row: parts[0] the largest x, [1] the sum of exp(x - largest), [2] x of the
// target, 0 where it is not here, [3] the sum of x.
struct LossParts {
  LossRule rule;
  void* logits;            // T [R, V]; written only with a cap
  const int64_t* targets;  // [R]
  float* parts;            // [4, R]
};

// gradient = weight (p_j (1 + 2 z_loss l) - (1 - smoothing) [j = target] - smoothing / vocab) dx/dlogit
struct LossGradient {
  LossRule rule;
  const void* x;           // T [R, V]: capped already
  const int64_t* targets;  // [R]
  const float* logsum;     // [R]: l
  const float* weights;    // [R]
  void* gradient;          // T [R, V]; may be x
};

// Both in one go, where all columns are here.
struct LossWhole {
  LossRule rule;
  void* logits;            // T [R, V]; becomes the gradient
  const int64_t* targets;  // [R]
  const float* weights;    // [R]
  float* losses;           // [R]
};

// A block has one row. A target that is neither below `vocab` nor `ignored` makes a NaN of its loss
// (of x of the target): the CPU does not look at targets.
void loss_parts(const LossParts& task, Stream stream);
void loss_gradient(const LossGradient& task, Stream stream);
void loss_whole(const LossWhole& task, Stream stream);

// Threads of a block. There are 1024 on a multiprocessor at a time, so that the rows in work, which
// are read twice, stay in the second-level cache: 34 MB of 50 or more.
constexpr int loss_threads(int64_t bytes) {
  if (bytes >= 128 << 10) return 1024;
  return bytes >= 32 << 10 ? 512 : 256;
}

}  // namespace mj
