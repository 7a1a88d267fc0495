// Rotary positions. S positions, B sequences, N heads, D columns of a head, R of them that turn.
#pragma once

#include <array>
#include <cstdint>

namespace mj {

// y[s,b,n] is x[s,b,n] whose first R columns are turned in pairs (a, b) by c, d = cos, sin:
// (a c_a - b d_a, b c_b + a d_b). The inverse, which is the gradient, is (a c_a + b d_b,
// b c_b - a d_a). Pairs lie R / 2 columns apart, or side by side (interleaved).
struct Rope {
  int64_t positions, sequences, heads, columns;
  int64_t turned;                  // R
  std::array<int64_t, 3> strides;  // numbers of x from one position, sequence and head to the next
  int dtype;
  bool interleaved, inverse;
  int threads;
  const void* x;    // T [S, B, N, D], by strides; columns lie together
  const void* cos;  // T [S, R]
  const void* sin;  // T [S, R]
  void* y;          // T [S, B, N, D], contiguous
};

void rope(const Rope& task);

}  // namespace mj
