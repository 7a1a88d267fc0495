// Rows of tokens that come back from experts: see every_machine.h.

template <typename T>
void collect(const CollectRows& task, const RowTable& table, Stretch tokens) {
  const int64_t columns = task.rule.columns, visits = task.rule.visits;
  for (int64_t token = tokens.first; token < tokens.last; ++token) {
    const int64_t* const places = task.places + token * visits;
    const float* const weights = task.weights == nullptr ? nullptr : task.weights + token * visits;
    T* const y = static_cast<T*>(task.y) + token * columns;
    each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
      Floats sum{};
      for (int64_t k = 0; k < visits; ++k) {
        const Floats x = lanes.get(table.row<T>(places[k]) + i);
        sum = weights == nullptr ? sum + x : fma(x, all(weights[k]), sum);
      }
      lanes.put(y + i, sum);
    });
  }
}

template <typename T>
void spread(const CollectBackward& task, const RowTable& from, const RowTable& to,
            Stretch tokens) {
  const int64_t columns = task.rule.columns, visits = task.rule.visits;
  for (int64_t visit = tokens.first * visits; visit < tokens.last * visits; ++visit) {
    const T* const dy = static_cast<const T*>(task.dy) + visit / visits * columns;
    T* const dx = to.row<T>(task.places[visit]);
    const float weight = task.weights == nullptr ? 1.0f : task.weights[visit];
    if (task.dweights == nullptr) {
      each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
        lanes.put(dx + i, lanes.get(dy + i) * weight);
      });
      continue;
    }
    const T* const x = from.row<T>(task.places[visit]);
    float product[1];
    add_up(columns, product, MJ_EACH(int64_t i, auto lanes, Floats* sums) {
      const Floats slope = lanes.get(dy + i);
      lanes.put(dx + i, slope * weight);
      sums[0] = fma(slope, lanes.get(x + i), sums[0]);
    });
    task.dweights[visit] = product[0];
  }
}

void collect_tokens(const CollectRows& task, const RowTable& from, Stretch tokens) {
  with_dtype(task.rule.dtype, [&](auto* type) {
    collect<std::remove_pointer_t<decltype(type)>>(task, from, tokens);
  });
}

void spread_tokens(const CollectBackward& task, const RowTable& from, const RowTable& to,
                   Stretch tokens) {
  with_dtype(task.rule.dtype, [&](auto* type) {
    spread<std::remove_pointer_t<decltype(type)>>(task, from, to, tokens);
  });
}
