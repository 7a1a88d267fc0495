// Rows of norms: see every_machine.h.

template <typename T, bool Centred>
void forward_row(const NormForward& task, int64_t row, bool past) {
  const int64_t columns = task.rule.columns;
  const T* x = static_cast<const T*>(task.x) + row * columns;
  if (task.residual != nullptr) {
    const T* const residual = static_cast<const T*>(task.residual) + row * columns;
    T* const sum = static_cast<T*>(task.sum) + row * columns;
    each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
      lanes.put(sum + i, lanes.get(x + i) + lanes.get(residual + i));
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

// `Rows` rows at a time: their share of dweight and dbias is added to fp32 sums in memory once.
template <typename T, bool Centred, int Rows>
void backward_some(const NormBackward& task, int64_t row, float* dweight, float* dbias) {
  const int64_t columns = task.rule.columns;
  RowGradient found[Rows];
  for (int n = 0; n < Rows; ++n) found[n] = gradient_of_row<T, Centred>(task, row + n);
  const T* const x = static_cast<const T*>(task.x) + row * columns;
  const T* const dy = static_cast<const T*>(task.dy) + row * columns;
  const T* const dsum = static_cast<const T*>(task.dsum) + (task.dsum ? row * columns : 0);
  const T* const weight = static_cast<const T*>(task.weight);
  T* const dx = static_cast<T*>(task.dx) + row * columns;
  const float offset = task.rule.offset ? 1.0f : 0.0f;
  const bool past = streams(static_cast<T*>(task.dx), task.rule.rows, columns);
  each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
    const Floats factor = lanes.get(weight + i) + offset;
    Floats of_weight = lanes.get(dweight + i), of_bias = {};
    for (int n = 0; n < Rows; ++n) {
      const int64_t place = n * columns + i;
      const Floats up = lanes.get(dy + place);
      const Floats apart = (lanes.get(x + place) - found[n].mean) * found[n].scale;
      const Floats bend = fma(apart, all(-found[n].of_product), up * factor - found[n].of_g);
      const Floats passed = task.dsum == nullptr ? Floats{} : lanes.get(dsum + place);
      put(past, lanes, dx + place, fma(bend, all(found[n].scale), passed));
      of_weight = fma(up, apart, of_weight);
      of_bias += up;
    }
    lanes.put(dweight + i, of_weight);
    if (dbias != nullptr) lanes.put(dbias + i, lanes.get(dbias + i) + of_bias);
  });
}

template <typename T, bool Centred>
void backward_rows(const NormBackward& task, Stretch rows, float* dweight, float* dbias) {
  constexpr int some = 2;  // more would not stay in the first-level cache
  int64_t row = rows.first;
  for (; row + some <= rows.last; row += some) {
    backward_some<T, Centred, some>(task, row, dweight, dbias);
  }
  if (row < rows.last) backward_some<T, Centred, 1>(task, row, dweight, dbias);
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
