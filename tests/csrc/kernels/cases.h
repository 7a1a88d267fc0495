// Kernels called on memory of exactly the right size, on odd shapes.
#pragma once

#include <cstdint>
#include <random>
#include <type_traits>
#include <vector>

#include "exact.h"
#include "kernels/dtype.h"

namespace cases {

template <typename T>
using Numbers = std::vector<T, exact::Memory<T>>;

// All that a kernel wrote, in fp32, and what the first of these numbers must be, in fp64.
struct Written {
  std::vector<float> found;
  std::vector<double> wanted;
};

struct Case {
  int64_t rows, columns;
  int dtype;
  int threads;
};

template <typename T>
Numbers<T> numbers(int64_t count, unsigned seed) {
  std::minstd_rand draw(seed);
  std::uniform_real_distribution<float> value(-2, 2);
  Numbers<T> found(static_cast<size_t>(count));
  for (T& number : found) number = mj::from_float<T>(value(draw));
  return found;
}

template <typename T>
void append(Written& written, const Numbers<T>& from) {
  for (const T& number : from) written.found.push_back(mj::to_float(number));
}

// work(T*) for the dtype of the case; what it returns.
template <typename Work>
Written of_dtype(const Case& given, const Work& work) {
  Written written;
  mj::with_dtype(given.dtype, [&](auto* type) { written = work(type); });
  return written;
}

Written norm(const Case& given, bool centred);
Written activation(const Case& given, bool gated);
Written residual(const Case& given);
Written rope(const Case& given, bool interleaved);
Written softmax(const Case& given, bool causal);
Written attention(const Case& given);
Written loss(const Case& given, float cap);
Written loss_of_a_part(const Case& given);
Written adam(const Case& given);
Written gradient(const Case& given);
Written experts(const Case& given);

}  // namespace cases
