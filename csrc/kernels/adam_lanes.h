// Stretches of tensors that an optimizer works on: see every_machine.h.

MJ_INLINE Floats root_of(Floats value) {
#if MJ_LANES == 16
  return (Floats)_mm512_sqrt_ps((__m512)value);
#elif MJ_LANES == 8
  return (Floats)_mm256_sqrt_ps((__m256)value);
#else
  for (int64_t lane = 0; lane < kLanes; ++lane) value[lane] = std::sqrt(value[lane]);
  return value;
#endif
}

// T: gradients; R: the rounded copy, void without one.
template <typename T, typename R>
void adam_span(const AdamFactors& by, const T* gradient, float* parameter, float* first,
               float* second, R* rounded, int64_t count) {
  const bool quick = by.take1 > 0.5f;  // the smaller share is multiplied: the error is in it
  each_vector(count, MJ_EACH(int64_t i, auto lanes) {
    const Floats g = lanes.get(gradient + i) * by.factor;
    const Floats old = lanes.get(first + i);
    const Floats mean = quick ? fma(old - g, all(by.keep1), g) : fma(g - old, all(by.take1), old);
    const Floats square = fma(g * by.take2, g, lanes.get(second + i) * by.keep2);
    const Floats size = fma(root_of(square), all(by.root), all(by.eps));
    const Floats found = fma(lanes.get(parameter + i), all(by.shrink), mean * by.step / size);
    lanes.put(first + i, mean);
    lanes.put(second + i, square);
    lanes.put(parameter + i, found);
    if constexpr (!std::is_void_v<R>) lanes.put(rounded + i, found);
  });
}

template <typename T, typename R>
void adam_block_of(const AdamStep& task, const AdamFactors& by, const Blocks& blocks,
                   int64_t block) {
  blocks.each(block, [&](size_t n, int64_t from, int64_t to) {
    R* copy = nullptr;
    if constexpr (!std::is_void_v<R>) copy = static_cast<R*>(task.rounded[n]) + from;
    adam_span<T, R>(by, static_cast<const T*>(task.gradients[n]) + from, task.parameters[n] + from,
                    task.first[n] + from, task.second[n] + from, copy, to - from);
  });
}

void adam_block(const AdamStep& task, const AdamFactors& by, const Blocks& blocks, int64_t block) {
  with_dtype(task.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if (task.rounded.empty()) return adam_block_of<T, void>(task, by, blocks, block);
    with_dtype(task.rounded_dtype, [&](auto* copy) {
      adam_block_of<T, std::remove_pointer_t<decltype(copy)>>(task, by, blocks, block);
    });
  });
}

template <typename T>
double squares_of(const T* x, int64_t count) {
  float sum[1];
  add_up(count, sum, MJ_EACH(int64_t i, auto lanes, Floats* sums) {
    const Floats value = lanes.get(x + i);
    sums[0] = fma(value, value, sums[0]);
  });
  return static_cast<double>(sum[0]);
}

// The same in fp64, whose squares neither vanish nor overflow.
template <typename T>
double wide_squares_of(const T* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<double>(to_float(x[i]));
    sum += value * value;
  }
  return sum;
}

template <bool Wide>
double squares_of_block(const TensorList& list, const Blocks& blocks, int64_t block) {
  return with_dtype(list.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    double total = 0;
    blocks.each(block, [&](size_t n, int64_t from, int64_t to) {
      const T* const x = static_cast<const T*>(list.tensors[n]);
      for (; from < to; from += kSummed) {
        const int64_t count = std::min(kSummed, to - from);
        total += Wide ? wide_squares_of(x + from, count) : squares_of(x + from, count);
      }
    });
    return total;
  });
}

// x - x is 0, or NaN where x is not finite.
template <bool Scaled, typename T>
bool scale_span(T* x, float factor, int64_t count) {
  Floats faults = {};
  each_vector(count, MJ_EACH(int64_t i, auto lanes) {
    const Floats value = lanes.get(x + i);
    faults += value - value;
    if constexpr (Scaled) lanes.put(x + i, value * factor);
  });
  return sum_of(faults) == 0;
}

template <bool Scaled>
bool scale_block(const TensorList& list, float factor, const Blocks& blocks, int64_t block) {
  return with_dtype(list.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    bool finite = true;
    blocks.each(block, [&](size_t n, int64_t from, int64_t to) {
      T* const x = static_cast<T*>(list.tensors[n]) + from;
      finite = scale_span<Scaled>(x, factor, to - from) && finite;
    });
    return finite;
  });
}
