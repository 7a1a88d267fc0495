// Rows of scores: see every_machine.h. A row is a query of a head of a sequence.

typedef uint8_t Bytes __attribute__((vector_size(MJ_LANES)));
constexpr float kNever = -std::numeric_limits<float>::infinity();

MJ_INLINE Ints seen(const uint8_t* from, Whole) {
  Bytes bytes;
  std::memcpy(&bytes, from, sizeof(bytes));
  return __builtin_convertvector(bytes, Ints) != 0;
}

MJ_INLINE Ints seen(const uint8_t* from, Part lanes) {
  Bytes bytes = {};
  std::memcpy(&bytes, from, static_cast<size_t>(lanes.count));
  return __builtin_convertvector(bytes, Ints) != 0;
}

// tanh, within 1e-7 of what it is.
MJ_INLINE Floats tanh(Floats u) {
  return 1.0f - 2.0f / (1.0f + exp(at_least(at_most(2.0f * u, all(60.0f)), all(-60.0f))));
}

// How many keys a row may see at most.
MJ_INLINE int64_t reach(const SoftmaxRule& rule, int64_t row) {
  const int64_t queries = rule.shape[2], keys = rule.shape[3];
  if (!rule.causal) return keys;
  return std::clamp<int64_t>(row % queries + 1 + keys - queries, 0, keys);
}

MJ_INLINE const uint8_t* allowed_of(const SoftmaxRule& rule, int64_t row) {
  if (rule.allowed == nullptr) return nullptr;
  const int64_t heads = rule.shape[1], queries = rule.shape[2];
  const int64_t head = row / queries % heads, sequence = row / queries / heads;
  return rule.allowed + sequence * rule.strides[0] + head * rule.strides[1] +
         row % queries * rule.strides[2];
}

// e^(s - max) of the first `end` keys to `to`, a whole number of vectors; their sum.
template <typename T>
MJ_INLINE float powers_of(const SoftmaxRule& rule, int64_t row, const T* x, float* to,
                          int64_t end) {
  const uint8_t* const allowed = allowed_of(rule, row);
  const bool capped = rule.cap > 0;
  const float scale = capped ? rule.scale / rule.cap : rule.scale;
  const int64_t padded = (end + kLanes - 1) / kLanes * kLanes;
  std::fill(to + end, to + padded, kNever);
  each_vector(end, MJ_EACH(int64_t i, auto lanes) {
    Floats score = lanes.get(x + i) * scale;
    if (capped) score = tanh(score) * rule.cap;
    if (allowed != nullptr) score = seen(allowed + i, lanes) ? score : all(kNever);
    lanes.put(to + i, score);
  });
  Floats most = all(kNever);
  for (int64_t i = 0; i < padded; i += kLanes) most = at_least(load(to + i), most);
  const float largest = largest_of(most);
  float sum[1];
  add_up(padded, sum, MJ_EACH(int64_t i, auto lanes, Floats* sums) {
    const Floats power = exp(lanes.get(to + i) - largest);
    lanes.put(to + i, power);
    sums[0] += power;
  });
  return end > 0 ? sum[0] : std::numeric_limits<float>::quiet_NaN();
}

template <typename T>
void weigh_rows(const SoftmaxRule& rule, Stretch rows, const T* x, T* w) {
  const int64_t keys = rule.shape[3];
  const std::unique_ptr<float[]> powers(new float[static_cast<size_t>(keys + kLanes)]);
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const int64_t end = reach(rule, row);
    const float sum = powers_of(rule, row, x + row * keys, powers.get(), end);
    T* const to = w + row * keys;
    const float share = 1.0f / sum;
    each_vector(end, MJ_EACH(int64_t i, auto lanes) {
      lanes.put(to + i, lanes.get(powers.get() + i) * share);
    });
    std::fill(to + end, to + keys, from_float<T>(sum == sum ? 0.0f : sum));
  }
}

// Whether the weights are NaN though no score of the row is to blame: the mask let none be seen.
template <typename T>
bool saw_nothing(const SoftmaxRule& rule, const T* x, const T* w) {
  const auto finite = [&](T score) { return std::isfinite(to_float(score) * rule.scale); };
  return std::isnan(to_float(w[0])) && std::all_of(x, x + rule.shape[3], finite);
}

template <typename T>
void slope_rows(const SoftmaxRule& rule, Stretch rows, const T* dw, const T* x, const T* w,
                T* dx) {
  const int64_t keys = rule.shape[3];
  const bool capped = rule.cap > 0;
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const int64_t end = reach(rule, row), start = row * keys;
    float mean[1];
    add_up(end, mean, MJ_EACH(int64_t i, auto lanes, Floats* sums) {
      sums[0] = fma(lanes.get(w + start + i), lanes.get(dw + start + i), sums[0]);
    });
    if (mean[0] != mean[0] && saw_nothing(rule, x + start, w + start)) {
      std::fill(dx + start, dx + start + keys, T{});
      continue;
    }
    each_vector(end, MJ_EACH(int64_t i, auto lanes) {
      const Floats apart = lanes.get(dw + start + i) - mean[0];
      Floats slope = lanes.get(w + start + i) * apart * rule.scale;
      if (capped) {
        const Floats bent = tanh(lanes.get(x + start + i) * (rule.scale / rule.cap));
        slope *= 1.0f - bent * bent;
      }
      lanes.put(dx + start + i, slope);
    });
    std::fill(dx + start + end, dx + start + keys, T{});
  }
}

void softmax_forward_rows(const SoftmaxRule& rule, Stretch rows, const void* x, void* w) {
  with_dtype(rule.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    weigh_rows(rule, rows, static_cast<const T*>(x), static_cast<T*>(w));
  });
}

void softmax_backward_rows(const SoftmaxRule& rule, Stretch rows, const void* dw, const void* x,
                           const void* w, void* dx) {
  with_dtype(rule.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    slope_rows(rule, rows, static_cast<const T*>(dw), static_cast<const T*>(x),
               static_cast<const T*>(w), static_cast<T*>(dx));
  });
}
