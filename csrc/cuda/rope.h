// Rotary positions. S positions, B sequences, N heads, D columns of a head, R of them that turn.
#pragma once

#include <array>
#include <cstdint>

#include "cuda/device.h"

namespace mj {

// y[s,b,n] is x[s,b,n] whose first R columns are turned in pairs (a, b) by c, d = cos, sin:
// (a c_a - b d_a, b c_b + a d_b). The inverse, which is the gradient, is (a c_a + b d_b,
// b c_b - a d_a). Pairs lie R / 2 columns apart, or side by side (interleaved).
struct Rope {
  int64_t positions, sequences, heads, columns;
  int64_t turned;      // R
  int64_t strides[3];  // numbers of x from one position, sequence and head to the next
  int dtype;
  bool interleaved, inverse;
  const void* x;    // T [S, B, N, D], by strides; columns lie together
  const void* cos;  // T [S, R]
  const void* sin;  // T [S, R]
  void* y;          // T [S, B, N, D], contiguous; may be x where that is
};

// What the threads of a block, which has one position of one sequence, do: `lanes` of them share a
// head, each of `turning` has some pairs to turn, those after them some numbers to copy.
struct RopePlan {
  int turning, copying, lanes, threads;
};

// Numbers that one thread turns or copies at a time.
struct RopeWidths {
  int turned, copied;
};

constexpr int kRopeThreads = 256;

constexpr RopePlan rope_plan(int64_t heads, int64_t columns, int64_t turned, RopeWidths widths) {
  const int turning = static_cast<int>(turned / widths.turned);
  const int copying = static_cast<int>((columns - turned) / widths.copied);
  int lanes = 1;
  while (lanes < kRopeThreads && lanes < turning + copying) lanes *= 2;
  int threads = 32;
  while (threads < kRopeThreads && threads < lanes * heads) threads *= 2;
  return {turning, copying, lanes, threads};
}

void rope(const Rope& task, Stream stream);

}  // namespace mj
