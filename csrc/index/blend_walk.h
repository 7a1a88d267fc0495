// A blend one sample after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "index/blend.h"

namespace mj {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// `taken` as the rule compares it: infinite of a source that is spent.
double given_as(const BlendRule& rule, size_t source, int64_t taken);

// Take samples [first, last); `taken` is the whole state, before and after.
// source, number: [last - first], written, or null.
void walk(const BlendRule& rule, Counts& taken, int64_t first, int64_t last, int16_t* source,
          int64_t* number);

// What was probably taken before `sample`: each share rounded down, the rest to the largest
// remainders.
Counts guess(const BlendRule& rule, int64_t sample);

}  // namespace mj
