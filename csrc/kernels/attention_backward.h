// Gradients of queries, keys and values: see every_machine.h.

// One key head of one sequence, and the query heads that share it, in order.
class Backward {
 public:
  Backward(const Attention& task, const AttentionInputs& from, int64_t sequence, int64_t group,
           float* scratch)
      : task_(task), from_(from), sequence_(sequence), group_(group), width_(width_of(task)),
        padded_((task.keys + kStrip - 1) / kStrip * kStrip), room_{scratch},
        keys_(room_.take(padded_ * width_)), values_(room_.take(padded_ * width_)),
        dkeys_(room_.take(padded_ * width_)), dvalues_(room_.take(padded_ * width_)),
        powers_(room_.take(kKeys * kQueries)), slopes_(room_.take(kKeys * kQueries)),
        q_(room_.take(kQueries * width_)), dout_(room_.take(kQueries * width_)),
        out_(room_.take(kQueries * width_)), q_turned_(room_.take(kQueries * width_)),
        dout_turned_(room_.take(kQueries * width_)), dq_(room_.take(kQueries * width_)),
        sums_(room_.take(kQueries)), means_(room_.take(kQueries)) {}

  void begin() {
    const auto k = rows_of(from_.k, task_.k_strides, 0, sequence_, group_, task_.dtype);
    const auto v = rows_of(from_.v, task_.v_strides, 0, sequence_, group_, task_.dtype);
    take_rows(k, task_.keys, task_.columns, 1.0f, keys_, width_, padded_);
    take_rows(v, task_.keys, task_.columns, 1.0f, values_, width_, padded_);
    std::fill_n(dkeys_, padded_ * width_, 0.0f);
    std::fill_n(dvalues_, padded_ * width_, 0.0f);
  }

  void look(int64_t head, int64_t query, void* dq) {
    const Sight sight = sight_of(task_, sequence_, query);
    take(sight, head, query);
    const int64_t end = std::min(task_.keys, sight.place + sight.count);
    for (int64_t key = sight.least / kKeys * kKeys; key < end; key += kKeys) {
      each_strip(sight, {key, std::min(task_.keys, key + kKeys)},
                 [&](const Strip& strip) { add(sight, strip); });
    }
    transpose(dq_, kQueries, q_, width_, width_, kQueries);
    const auto strides = strides_of(task_, task_.heads);
    give_rows(q_, width_, task_.scale, sight.count, task_.columns,
              rows_of(dq, strides, query, sequence_, head, task_.dtype));
  }

  void finish(void* dk, void* dv) {
    const auto strides = strides_of(task_, task_.groups);
    const auto give = [&](const float* from, float factor, void* to) {
      give_rows(from, width_, factor, task_.keys, task_.columns,
                rows_of(to, strides, 0, sequence_, group_, task_.dtype));
    };
    give(dkeys_, 1.0f / kLog2e, dk);  // queries had that factor
    give(dvalues_, 1.0f, dv);
  }

 private:
  // A block of queries, what came of them, and its gradient.
  void take(const Sight& sight, int64_t head, int64_t query) {
    const auto here = [&](const void* x, const auto& strides, float factor, float* to) {
      const auto rows = rows_of(x, strides, query, sequence_, head, task_.dtype);
      take_rows(rows, sight.count, task_.columns, factor, to, width_, kQueries);
    };
    const auto whole = strides_of(task_, task_.heads);
    here(from_.q, task_.q_strides, task_.scale * kLog2e, q_);
    here(from_.dout, whole, 1.0f, dout_);
    here(from_.out, whole, 1.0f, out_);
    transpose(q_, width_, q_turned_, kQueries, kQueries, width_);
    transpose(dout_, width_, dout_turned_, kQueries, kQueries, width_);
    for (int64_t i = 0; i < kQueries; ++i) {
      float mean[1];
      add_up(width_, mean, MJ_EACH(int64_t d, auto lanes, Floats* sums) {
        sums[0] = fma(lanes.get(out_ + i * width_ + d), lanes.get(dout_ + i * width_ + d), sums[0]);
      });
      means_[i] = mean[0];
    }
    const float* const sums = from_.sums + (sequence_ * task_.heads + head) * task_.queries + query;
    std::copy_n(sums, sight.count, sums_);
    std::fill(sums_ + sight.count, sums_ + kQueries, -kNever);
    std::fill_n(dq_, kQueries * width_, 0.0f);
  }

  void add(const Sight& sight, const Strip& strip) {
    const int64_t from = strip.from * kLanes, row = strip.key * width_;
    const int64_t queries = strip.vectors() * kLanes, vectors = width_ / kLanes;
    multiply({keys_ + row, width_, 1, q_turned_ + from, kQueries, powers_ + from, kQueries,
              strip.keys, strip.vectors(), task_.columns, false});
    multiply({values_ + row, width_, 1, dout_turned_ + from, kQueries, slopes_ + from, kQueries,
              strip.keys, strip.vectors(), task_.columns, false});
    if (strip.masked) hide(sight, strip, powers_);
    slope(strip);
    multiply({powers_ + from, kQueries, 1, dout_ + from * width_, width_, dvalues_ + row, width_,
              strip.keys, vectors, queries, true});
    multiply({slopes_ + from, kQueries, 1, q_ + from * width_, width_, dkeys_ + row, width_,
              strip.keys, vectors, queries, true});
    multiply({keys_ + row, 1, width_, slopes_ + from, kQueries, dq_ + from, kQueries, task_.columns,
              strip.vectors(), strip.keys, true});
  }

  // Scores to weights, gradients of weights to gradients of scores.
  void slope(const Strip& strip) {
    for (int64_t v = strip.from * kLanes; v < strip.to * kLanes; v += kLanes) {
      const Floats sum = load(sums_ + v), mean = load(means_ + v);
      for (int64_t k = 0; k < strip.keys; ++k) {
        float* const power = powers_ + k * kQueries + v;
        float* const slope = slopes_ + k * kQueries + v;
        const Floats weight = power_of_two(load(power) - sum);
        store(power, weight);
        store(slope, weight * (load(slope) - mean));
      }
    }
  }

  const Attention& task_;
  const AttentionInputs& from_;
  int64_t sequence_, group_, width_, padded_;
  Room room_;
  float *keys_, *values_, *dkeys_, *dvalues_, *powers_, *slopes_, *q_, *dout_, *out_, *q_turned_,
      *dout_turned_, *dq_, *sums_, *means_;
};

void attention_backward_group(const Attention& task, const BackwardPiece& piece, float* scratch) {
  Backward work(task, *piece.from, piece.sequence, piece.group, scratch);
  const int64_t share = task.heads / task.groups;
  work.begin();
  for (int64_t head = piece.group * share; head < (piece.group + 1) * share; ++head) {
    for (int64_t query = 0; query < task.queries; query += kQueries) {
      work.look(head, query, piece.dq);
    }
  }
  work.finish(piece.dk, piece.dv);
}
