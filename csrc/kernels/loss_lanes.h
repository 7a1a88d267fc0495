// Rows of logits: see every_machine.h.

constexpr float kNone = -__builtin_inff();

// tanh within some units of the last place: by a polynomial near 0, where 1 - 2 / (e^2x + 1) loses digits.
MJ_INLINE Floats tanh_of(Floats x) {
  const Floats far = 1.0f - 2.0f / (exp(x + x) + 1.0f);
  const Floats square = x * x;
  Floats q = fma(square, all(-0x1.9ada6p-8f), all(0x1.59e1c8p-6f));
  q = fma(square, q, all(-0x1.b955dcp-5f));
  q = fma(square, q, all(0x1.110eep-3f));
  q = fma(square, q, all(-0x1.555554p-2f));
  const Floats near = fma(q * square, x, x);
  return square < 0.36f ? near : far;
}

// The largest of a row; a NaN is passed over.
template <typename T>
float largest(const T* x, int64_t columns) {
  Floats most[4] = {all(kNone), all(kNone), all(kNone), all(kNone)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= columns; i += 4 * kLanes) {
    for (int n = 0; n < 4; ++n) most[n] = at_least(load(x + i + n * kLanes), most[n]);
  }
  for (; i + kLanes <= columns; i += kLanes) most[0] = at_least(load(x + i), most[0]);
  float found = largest_of(at_least(at_least(most[0], most[1]), at_least(most[2], most[3])));
  for (; i < columns; ++i) {
    const float value = to_float(x[i]);
    found = value > found ? value : found;
  }
  return found;
}

struct RowParts {
  float most, sum, chosen, total;
};

template <typename T>
RowParts parts_of_row(const LossRule& rule, T* x, int64_t target) {
  const int64_t columns = rule.columns;
  if (rule.cap > 0) {
    each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
      lanes.put(x + i, tanh_of(lanes.get(x + i) / rule.cap) * rule.cap);
    });
  }
  const int64_t place = target - rule.first;
  const bool here = place >= 0 && place < columns;
  RowParts found{largest(x, columns), 0, here ? to_float(x[place]) : 0.0f, 0};
  const float shift = found.most == kNone ? 0.0f : found.most;  // no power is NaN where all are -inf
  float sums[2];
  add_up(columns, sums, MJ_EACH(int64_t i, auto lanes, Floats* into) {
    const Floats value = lanes.get(x + i);
    into[0] += lanes.keep(exp(value - shift));
    into[1] += value;
  });
  found.sum = sums[0], found.total = sums[1];
  return found;
}

// What each x of a row adds to its gradient: (exp(x - shift) scale - share) weight.
struct RowSlope {
  float shift, scale, share, weight;
};

inline RowSlope slope_of(const LossRule& rule, float most, float sum, float weight) {
  const float share = rule.smoothing / static_cast<float>(rule.vocab);
  const float logsum = most + std::log(sum);
  return {most, (1.0f + 2.0f * rule.z_loss * logsum) / sum, share, weight};
}

template <bool Capped, typename T>
void slopes_of_row(const LossRule& rule, const T* x, T* gradient, int64_t target, RowSlope slope) {
  const auto [shift, scale, share, weight] = slope;
  const float inverse = Capped ? 1.0f / rule.cap : 0.0f;
  const auto of = MJ_EACH(Floats value) {
    const Floats whole = fma(exp(value - shift), all(scale), all(-share)) * weight;
    if constexpr (!Capped) return whole;  // of -inf bent would be NaN
    const Floats bent = value * inverse;  // dx/dlogit = 1 - (x / cap)^2
    return whole * fma(-bent, bent, all(1.0f));
  };
  const int64_t place = target - rule.first;
  const bool here = place >= 0 && place < rule.columns;
  float at_target = 0;
  if (here) {
    const float value = to_float(x[place]), bent = value * inverse;
    const float apart = exp(all(value - shift))[0] * scale - share - (1.0f - rule.smoothing);
    at_target = apart * weight;
    if (Capped) at_target *= 1.0f - bent * bent;
  }
  each_vector(rule.columns,
              MJ_EACH(int64_t i, auto lanes) { lanes.put(gradient + i, of(lanes.get(x + i))); });
  if (here) gradient[place] = from_float<T>(at_target);
}

template <typename T>
void gradient_of_row(const LossRule& rule, const T* x, T* gradient, int64_t target, RowSlope slope) {
  if (rule.cap > 0) return slopes_of_row<true>(rule, x, gradient, target, slope);
  slopes_of_row<false>(rule, x, gradient, target, slope);
}

template <typename T>
void clear_row(const LossRule& rule, T* gradient) {
  std::memset(static_cast<void*>(gradient), 0, static_cast<size_t>(rule.columns) * sizeof(T));
}

void loss_parts_rows(const LossParts& task, Stretch rows) {
  with_dtype(task.rule.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t row = rows.first; row < rows.last; ++row) {
      T* const x = static_cast<T*>(task.logits) + row * task.rule.columns;
      const auto found = parts_of_row<T>(task.rule, x, task.targets[row]);
      const float parts[] = {found.most, found.sum, found.chosen, found.total};
      for (int n = 0; n < 4; ++n) task.parts[n * task.rule.rows + row] = parts[n];
    }
  });
}

void loss_gradient_rows(const LossGradient& task, Stretch rows) {
  const auto& rule = task.rule;
  with_dtype(rule.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t row = rows.first; row < rows.last; ++row) {
      const int64_t target = task.targets[row];
      const T* const x = static_cast<const T*>(task.x) + row * rule.columns;
      T* const gradient = static_cast<T*>(task.gradient) + row * rule.columns;
      if (target == rule.ignored || task.weights[row] == 0) {
        clear_row(rule, gradient);
        continue;
      }
      const auto slope = slope_of(rule, task.logsum[row], 1.0f, task.weights[row]);
      gradient_of_row<T>(rule, x, gradient, target, slope);
    }
  });
}

inline float loss_of(const LossRule& rule, const RowParts& found) {
  const float log = std::log(found.sum), logsum = found.most + log;
  const float mean = found.total / static_cast<float>(rule.columns);
  const float smooth = rule.smoothing == 0 ? 0.0f : rule.smoothing * (found.chosen - mean);
  return found.most - found.chosen + log + smooth + rule.z_loss * logsum * logsum;
}

template <typename T>
float whole_bent_row(const LossRule& rule, T* x, int64_t target, float weight) {
  const auto found = parts_of_row(rule, x, target);
  if (weight != 0) gradient_of_row(rule, x, x, target, slope_of(rule, found.most, found.sum, weight));
  return loss_of(rule, found);
}

// exp(x - shift) of a row, in stretches that stay in the first-level cache; shift is the largest x
// so far, shifts[n] that of stretch n.
struct Powers {
  static constexpr int kMost = 256;

  Pieces stretches;
  float* kept;
  float shifts[kMost];

  Stretch operator[](int64_t n) const { return stretches[n]; }
  int64_t count() const { return stretches.count(); }
  // what is missing in the powers of stretch n, once the largest x of the row is known
  float missing(int64_t n, float most) const {
    return shifts[n] == kNone ? 0.0f : exp(all(shifts[n] - most))[0];
  }
};

template <typename T>
RowParts powers_of_row(T* x, Powers& powers) {
  RowParts found{kNone, 0, 0, 0};
  for (int64_t n = 0; n < powers.count(); ++n) {
    T* const part = x + powers[n].first;
    float* const kept = powers.kept + powers[n].first;
    const int64_t size = powers[n].last - powers[n].first;
    const float here = largest(part, size), before = found.most;
    if (here > before) found.most = here;
    const float shift = found.most == kNone ? 0.0f : found.most;
    float sums[2];
    add_up(size, sums, MJ_EACH(int64_t i, auto lanes, Floats* into) {
      const Floats value = lanes.get(part + i);
      const Floats power = lanes.keep(exp(value - shift));
      __builtin_prefetch(part + size + i);  // the next stretch, or row: 1.2 times as fast
      lanes.put(kept + i, power);
      into[0] += power;
      into[1] += value;
    });
    if (before != kNone) found.sum *= exp(all(before - shift))[0];
    found.sum += sums[0], found.total += sums[1];
    powers.shifts[n] = found.most;
  }
  return found;
}

template <typename T>
void gradient_of_powers(const RowSlope& slope, const Powers& powers, T* x) {
  const Floats down = all(-slope.share * slope.weight);
  for (int64_t n = 0; n < powers.count(); ++n) {
    T* const part = x + powers[n].first;
    const float* const kept = powers.kept + powers[n].first;
    const Floats scale = all(slope.scale * powers.missing(n, slope.shift) * slope.weight);
    each_vector(powers[n].last - powers[n].first, MJ_EACH(int64_t i, auto lanes) {
      lanes.put(part + i, fma(lanes.get(kept + i), scale, down));
    });
  }
}

// Without a cap: powers are kept while they are summed, so that each is computed once; those of fp32
// in the place of x.
template <typename T>
float whole_row(const LossRule& rule, T* x, int64_t target, float weight) {
  const int64_t columns = rule.columns;
  const int64_t size = std::max<int64_t>(2048, (columns + Powers::kMost - 1) / Powers::kMost);
  Powers powers{{columns, size}, nullptr, {}};
  if constexpr (std::is_same_v<T, float>) {
    powers.kept = x;
  } else {
    powers.kept = near_row(columns);
  }
  const bool here = target >= 0 && target < columns;
  const float chosen = here ? to_float(x[target]) : 0.0f;
  auto found = powers_of_row(x, powers);
  found.chosen = chosen;
  if (weight == 0) return loss_of(rule, found);
  const auto slope = slope_of(rule, found.most, found.sum, weight);
  const float power = here ? powers.kept[target] * powers.missing(target / size, found.most) : 0.0f;
  gradient_of_powers(slope, powers, x);
  if (here) {
    const float apart = power * slope.scale - slope.share - (1.0f - rule.smoothing);
    x[target] = from_float<T>(apart * weight);
  }
  return loss_of(rule, found);
}

void loss_whole_rows(const LossWhole& task, Stretch rows) {
  const auto& rule = task.rule;
  with_dtype(rule.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t row = rows.first; row < rows.last; ++row) {
      const int64_t target = task.targets[row];
      const float weight = task.weights[row];
      T* const x = static_cast<T*>(task.logits) + row * rule.columns;
      if (target == rule.ignored) {
        task.losses[row] = 0;
        clear_row(rule, x);
        continue;
      }
      const bool bent = rule.cap > 0;
      task.losses[row] = bent ? whole_bent_row(rule, x, target, weight) : whole_row(rule, x, target, weight);
      if (weight == 0) clear_row(rule, x);
    }
  });
}
