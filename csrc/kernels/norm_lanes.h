// Rows of norms: see every_machine.h.

template <typename T, bool Centred>
void forward_row(const NormForward& task, int64_t row, bool past) {
  const int64_t columns = task.rule.columns;
  const T* const from = static_cast<const T*>(task.x) + row * columns;
  const T* const residual =
      static_cast<const T*>(task.residual) + (task.residual ? row * columns : 0);
  const T* x = from;
  if (residual != nullptr) {
    T* const sum = static_cast<T*>(task.sum) + row * columns;
    each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
      lanes.put(sum + i, lanes.get(from + i) + lanes.get(residual + i));
    });
    x = sum;
  }
  const float count = static_cast<float>(columns);
  float mean[1] = {0};
  if constexpr (Centred) {
    add_up(columns, mean, MJ_EACH(int64_t i, auto lanes, Floats* sums) {
      sums[0] += lanes.get(x + i);
    });
    task.mean[row] = mean[0] /= count;
  }
  float square[1];
  add_up(columns, square, MJ_EACH(int64_t i, auto lanes, Floats* sums) {
    const Floats apart = lanes.keep(lanes.get(x + i) - mean[0]);
    sums[0] = fma(apart, apart, sums[0]);
  });
  const float scale = 1.0f / std::sqrt(square[0] / count + task.rule.eps);
  task.scale[row] = scale;
  const T* const weight = static_cast<const T*>(task.weight);
  const T* const bias = static_cast<const T*>(task.bias);
  T* const y = static_cast<T*>(task.y) + row * columns;
  const float offset = task.rule.offset ? 1.0f : 0.0f;
  each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
    const Floats part = (lanes.get(x + i) - mean[0]) * scale;
    const Floats factor = lanes.get(weight + i) + offset;
    const Floats shift = bias == nullptr ? Floats{} : lanes.get(bias + i);
    if (past) {
      ahead(from + columns + i);
      if (residual != nullptr) ahead(residual + columns + i);
    }
    put(past, lanes, y + i, fma(part, factor, shift));
  });
}

template <typename T, bool Centred>
void forward_rows(const NormForward& task, Stretch rows) {
  const bool past = streams(static_cast<T*>(task.y), task.rule.rows, task.rule.columns);
  for (int64_t row = rows.first; row < rows.last; ++row) forward_row<T, Centred>(task, row, past);
  if (past) drained();
}

void norm_forward_rows(const NormForward& task, Stretch rows) {
  with_dtype(task.rule.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    task.rule.centred ? forward_rows<T, true>(task, rows) : forward_rows<T, false>(task, rows);
  });
}

// What the gradient of one row needs, x^ = (x - mean) * scale and g = dy * weight:
// dx = scale * (g - mean(g) - x^ * mean(g * x^)).
struct RowGradient {
  float mean, scale;
  float of_g, of_product;  // the two means
};

template <typename T, bool Centred>
RowGradient gradient_of_row(const NormBackward& task, int64_t row) {
  const int64_t columns = task.rule.columns;
  const T* const x = static_cast<const T*>(task.x) + row * columns;
  const T* const dy = static_cast<const T*>(task.dy) + row * columns;
  const T* const weight = static_cast<const T*>(task.weight);
  const float offset = task.rule.offset ? 1.0f : 0.0f;
  const float mean = Centred ? task.mean[row] : 0.0f;
  float sums[2];
  add_up(columns, sums, MJ_EACH(int64_t i, auto lanes, Floats* found) {
    const Floats g = lanes.get(dy + i) * (lanes.get(weight + i) + offset);
    found[0] = fma(g, lanes.get(x + i) - mean, found[0]);
    if constexpr (Centred) found[1] += g;
  });
  const float scale = task.scale[row], share = 1.0f / static_cast<float>(columns);
  return {mean, scale, Centred ? sums[1] * share : 0.0f, sums[0] * scale * share};
}

// The share of the row in dweight and dbias is added to fp32 sums in memory.
template <typename T, bool Centred>
void backward_row(const NormBackward& task, int64_t row, float* dweight, float* dbias) {
  const int64_t columns = task.rule.columns;
  const auto [mean, scale, of_g, of_product] = gradient_of_row<T, Centred>(task, row);
  const T* const x = static_cast<const T*>(task.x) + row * columns;
  const T* const dy = static_cast<const T*>(task.dy) + row * columns;
  const T* const dsum = static_cast<const T*>(task.dsum) + (task.dsum ? row * columns : 0);
  const T* const weight = static_cast<const T*>(task.weight);
  T* const dx = static_cast<T*>(task.dx) + row * columns;
  const float offset = task.rule.offset ? 1.0f : 0.0f;
  const bool past = streams(static_cast<T*>(task.dx), task.rule.rows, columns);
  each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
    const Floats up = lanes.get(dy + i);
    const Floats apart = (lanes.get(x + i) - mean) * scale;
    const Floats g = up * (lanes.get(weight + i) + offset);
    const Floats bend = fma(apart, all(-of_product), g - of_g);
    const Floats passed = dsum == nullptr ? Floats{} : lanes.get(dsum + i);
    if (past) {
      ahead(x + columns + i);
      ahead(dy + columns + i);
    }
    put(past, lanes, dx + i, fma(bend, all(scale), passed));
    lanes.put(dweight + i, fma(up, apart, lanes.get(dweight + i)));
    if (dbias != nullptr) lanes.put(dbias + i, lanes.get(dbias + i) + up);
  });
}

template <typename T, bool Centred>
void backward_rows(const NormBackward& task, Stretch rows, float* dweight, float* dbias) {
  for (int64_t row = rows.first; row < rows.last; ++row) {
    backward_row<T, Centred>(task, row, dweight, dbias);
  }
  drained();
}

// dweight and dbias: fp32 [H], what these rows add up to.
void norm_backward_rows(const NormBackward& task, Stretch rows, float* dweight, float* dbias) {
  std::fill_n(dweight, task.rule.columns, 0.0f);
  if (dbias != nullptr) std::fill_n(dbias, task.rule.columns, 0.0f);
  with_dtype(task.rule.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto work = task.rule.centred ? backward_rows<T, true> : backward_rows<T, false>;
    work(task, rows, dweight, dbias);
  });
}
