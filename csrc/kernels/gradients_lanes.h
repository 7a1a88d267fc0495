// Stretches of a gradient: see every_machine.h.

template <typename T>
void add_stretch_of(const GradientRule& rule, const T* gradient, float* sum, Stretch stretch) {
  const int64_t count = stretch.last - stretch.first;
  const T* const from = gradient + stretch.first;
  float* const to = sum + stretch.first;
  if (rule.first) {
    const bool past = streams(to, rule.numbers / kLanes, kLanes);
    each_vector(count, MJ_EACH(int64_t i, auto lanes) { put(past, lanes, to + i, lanes.get(from + i)); });
    if (past) drained();
    return;
  }
  each_vector(count, MJ_EACH(int64_t i, auto lanes) {
    lanes.put(to + i, lanes.get(to + i) + lanes.get(from + i));
  });
}

void add_stretch(const GradientRule& rule, const void* gradient, float* sum, Stretch stretch) {
  with_dtype(rule.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    add_stretch_of(rule, static_cast<const T*>(gradient), sum, stretch);
  });
}
