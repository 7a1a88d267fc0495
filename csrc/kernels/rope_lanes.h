// Heads that turn: see every_machine.h. A row is a position of a sequence: all its heads.

// Pairs that lie R / 2 apart: two vectors at a time.
template <typename T, bool Inverse>
MJ_INLINE void turn_halves(const T* x, const T* cos, const T* sin, T* y, int64_t half, bool past) {
  each_vector(half, MJ_EACH(int64_t i, auto lanes) {
    const Floats a = lanes.get(x + i), b = lanes.get(x + half + i);
    const Floats of_a = lanes.get(sin + i), of_b = lanes.get(sin + half + i);
    const Floats in_a = a * lanes.get(cos + i), in_b = b * lanes.get(cos + half + i);
    put(past, lanes, y + i, Inverse ? fma(b, of_b, in_a) : fma(b, -of_a, in_a));
    put(past, lanes, y + half + i, Inverse ? fma(a, -of_a, in_b) : fma(a, of_b, in_b));
  });
}

// Each number and its neighbour change places.
MJ_INLINE Floats swapped(Floats value) {
  Ints places;
  for (int lane = 0; lane < MJ_LANES; ++lane) places[lane] = lane ^ 1;
  return __builtin_shuffle(value, places);
}

// Neighbours: a vector holds whole pairs.
template <typename T, bool Inverse>
MJ_INLINE void turn_neighbours(const T* x, const T* cos, const T* sin, T* y, int64_t turned,
                               bool past) {
  Floats sign;
  for (int lane = 0; lane < MJ_LANES; ++lane) sign[lane] = (lane % 2 == 0) == Inverse ? 1 : -1;
  each_vector(turned, MJ_EACH(int64_t i, auto lanes) {
    const Floats value = lanes.get(x + i), angle = lanes.get(sin + i);
    const Floats share = (Inverse ? swapped(angle) : angle) * sign;
    put(past, lanes, y + i, fma(swapped(value), share, value * lanes.get(cos + i)));
  });
}

template <typename T, bool Interleaved, bool Inverse>
void turn_rows(const Rope& task, Stretch rows) {
  const auto [of_position, of_sequence, of_head] = task.strides;
  const int64_t turned = task.turned, columns = task.columns;
  const int64_t vectors = Interleaved ? turned : turned / 2;
  T* y = static_cast<T*>(task.y) + rows.first * task.heads * columns;
  const bool whole = vectors % kLanes == 0 && columns % kLanes == 0;
  const auto all_rows = task.positions * task.sequences * task.heads;
  const bool past = whole && streams(static_cast<T*>(task.y), all_rows, columns);
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const int64_t position = row / task.sequences, sequence = row % task.sequences;
    const T* const cos = static_cast<const T*>(task.cos) + position * turned;
    const T* const sin = static_cast<const T*>(task.sin) + position * turned;
    const T* x = static_cast<const T*>(task.x) + position * of_position + sequence * of_sequence;
    for (int64_t head = 0; head < task.heads; ++head, x += of_head, y += columns) {
      if constexpr (Interleaved) {
        turn_neighbours<T, Inverse>(x, cos, sin, y, turned, past);
      } else {
        turn_halves<T, Inverse>(x, cos, sin, y, turned / 2, past);
      }
      if (turned < columns) {
        std::memcpy(y + turned, x + turned, static_cast<size_t>(columns - turned) * sizeof(T));
      }
    }
  }
  if (past) drained();
}

void rope_rows(const Rope& task, Stretch rows) {
  with_dtype(task.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if (task.interleaved) {
      task.inverse ? turn_rows<T, true, true>(task, rows) : turn_rows<T, true, false>(task, rows);
    } else {
      task.inverse ? turn_rows<T, false, true>(task, rows) : turn_rows<T, false, false>(task, rows);
    }
  });
}
