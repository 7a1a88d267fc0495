// Rows of the residual stream: see every_machine.h.

template <typename T>
void add_rows(const ResidualForward& task, Stretch rows) {
  const int64_t columns = task.rule.columns;
  const T* const bias = static_cast<const T*>(task.bias);
  const bool past = streams(static_cast<T*>(task.y), task.rule.rows, columns);
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const T* const x = static_cast<const T*>(task.x) + row * columns;
    const T* const residual = static_cast<const T*>(task.residual) + row * columns;
    T* const y = static_cast<T*>(task.y) + row * columns;
    each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
      if (past) {
        ahead(x + i + kAhead);
        ahead(residual + i + kAhead);
      }
      const Floats value = lanes.get(x + i) + lanes.get(bias + i);
      put(past, lanes, y + i, value + lanes.get(residual + i));
    });
  }
  if (past) drained();
}

void add_residual_rows(const ResidualForward& task, Stretch rows) {
  with_dtype(task.rule.dtype, [&](auto* type) {
    add_rows<std::remove_pointer_t<decltype(type)>>(task, rows);
  });
}

// sums: fp32 [H], what these rows add up to; four rows at a time, as sums lie in memory.
template <typename T>
void sum_rows(const ResidualRule& rule, const T* dy, Stretch rows, float* sums) {
  const int64_t columns = rule.columns;
  std::fill_n(sums, columns, 0.0f);
  int64_t row = rows.first;
  for (; row + 4 <= rows.last; row += 4) {
    const T* const from = dy + row * columns;
    each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
      const Floats two = lanes.get(from + i) + lanes.get(from + columns + i);
      const Floats more = lanes.get(from + 2 * columns + i) + lanes.get(from + 3 * columns + i);
      lanes.put(sums + i, lanes.get(sums + i) + (two + more));
    });
  }
  for (; row < rows.last; ++row) {
    each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
      lanes.put(sums + i, lanes.get(sums + i) + lanes.get(dy + row * columns + i));
    });
  }
}

void bias_gradient_rows(const ResidualRule& rule, const void* dy, Stretch rows, float* sums) {
  with_dtype(rule.dtype, [&](auto* type) {
    sum_rows(rule, static_cast<const std::remove_pointer_t<decltype(type)>*>(dy), rows, sums);
  });
}
