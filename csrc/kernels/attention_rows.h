// Rows of tensors to scratch memory and back: see every_machine.h. There they are fp32 and `width`
// apart, which is the columns up to a whole kLine.

// Addresses in scratch memory, one after the other, each at a cache line.
struct Room {
  float* next;

  float* take(int64_t floats) {
    float* const here = next;
    next += (floats + kLine - 1) / kLine * kLine;
    return here;
  }
};

// Rows of a tensor: where the first number of each is, and how far apart they are.
struct Rows {
  const void* at;
  int64_t apart;
  int dtype;
};

Rows rows_of(const void* at, const std::array<int64_t, 3>& strides, int64_t position,
             int64_t sequence, int64_t head, int dtype) {
  const int64_t numbers = position * strides[0] + sequence * strides[1] + head * strides[2];
  return {static_cast<const char*>(at) + numbers * size_of(dtype), strides[0], dtype};
}

// Strides of a contiguous tensor [positions, B, heads, D].
std::array<int64_t, 3> strides_of(const Attention& task, int64_t heads) {
  return {task.sequences * heads * task.columns, heads * task.columns, task.columns};
}

// Numbers of `count` rows, times `factor`, to rows of `width`; zeros behind and below, to `padded`.
void take_rows(const Rows& from, int64_t count, int64_t columns, float factor, float* to,
               int64_t width, int64_t padded) {
  with_dtype(from.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t row = 0; row < count; ++row) {
      const T* const x = static_cast<const T*>(from.at) + row * from.apart;
      float* const y = to + row * width;
      const auto* const ahead = reinterpret_cast<const char*>(x + kAhead * from.apart);
      for (int64_t i = 0; i < columns * size_of(from.dtype); i += 64) __builtin_prefetch(ahead + i);
      each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
        store(y + i, lanes.get(x + i) * factor);
      });
      for (int64_t i = (columns + kLanes - 1) / kLanes * kLanes; i < width; ++i) y[i] = 0;
    }
  });
  std::fill(to + count * width, to + padded * width, 0.0f);
}

// Rows of `width` to rows of a tensor, times `factor`.
void give_rows(const float* from, int64_t width, float factor, int64_t count, int64_t columns,
               const Rows& to) {
  with_dtype(to.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t row = 0; row < count; ++row) {
      const float* const x = from + row * width;
      T* const y = static_cast<T*>(const_cast<void*>(to.at)) + row * to.apart;
      each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
        lanes.put(y + i, load(x + i) * factor);
      });
    }
  });
}
