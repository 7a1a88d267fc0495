// Gradients of queries, keys and values: see every_machine.h.

// One key head of one sequence, and the query heads that share it, in order.
class Backward {
 public:
  Backward(const Attention& task, const AttentionInputs& from, int64_t sequence, int64_t group,
           float* scratch)
      : task_(task), from_(from), sequence_(sequence), group_(group),
        width_(width_of(task, kPair)), words_(width_ / kPair),
        padded_((task.keys + kStrip - 1) / kStrip * kStrip), room_{scratch},
        keys_(room_.take(padded_ * words_)), keys_down_(down_of(keys_, padded_)),
        values_(room_.take(padded_ * words_)), dkeys_(room_.take(padded_ * width_)),
        dvalues_(room_.take(padded_ * width_)), powers_(room_.take(kKeys * kQueries)),
        slopes_(room_.take(kKeys * kQueries)),
        slopes_down_(kPair == 1 ? slopes_ : room_.take(kKeys / kPair * kQueries)),
        q_(room_.take(kQueries * words_)), q_down_(down_of(q_, kQueries)),
        q_turned_(room_.take(kQueries * words_)), dout_(room_.take(kQueries * width_)),
        dout_down_(down_of(dout_, kQueries)), dout_turned_(room_.take(kQueries * words_)),
        out_(room_.take(kQueries * width_)), dq_(room_.take(kQueries * width_)),
        sums_(room_.take(kQueries)), means_(room_.take(kQueries)) {}

  void begin() {
    const auto k = rows_of(from_.k, task_.k_strides, 0, sequence_, group_, task_.dtype);
    const auto v = rows_of(from_.v, task_.v_strides, 0, sequence_, group_, task_.dtype);
    take_along(k, task_.keys, task_.columns, keys_, width_, padded_);
    turn_down(keys_, padded_, width_, keys_down_);
    take_along(v, task_.keys, task_.columns, values_, width_, padded_);
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
    transpose(dq_, kQueries, out_, width_, width_, kQueries);
    const auto strides = strides_of(task_, task_.heads);
    give_rows(out_, width_, task_.scale, sight.count, task_.columns,
              rows_of(dq, strides, query, sequence_, head, task_.dtype));
  }

  void finish(void* dk, void* dv) {
    const auto strides = strides_of(task_, task_.groups);
    const auto give = [&](const float* from, float factor, void* to) {
      give_rows(from, width_, factor, task_.keys, task_.columns,
                rows_of(to, strides, 0, sequence_, group_, task_.dtype));
    };
    give(dkeys_, task_.scale, dk);
    give(dvalues_, 1.0f, dv);
  }

 private:
  // A block of queries, what came of them, and its gradient.
  void take(const Sight& sight, int64_t head, int64_t query) {
    const auto whole = strides_of(task_, task_.heads);
    const auto rows = [&](const void* x, const std::array<int64_t, 3>& strides) {
      return rows_of(x, strides, query, sequence_, head, task_.dtype);
    };
    const int64_t count = sight.count, columns = task_.columns;
    take_along(rows(from_.q, task_.q_strides), count, columns, q_, width_, kQueries);
    transpose(q_, words_, q_turned_, kQueries, kQueries, words_);
    turn_down(q_, kQueries, width_, q_down_);
    take_along(rows(from_.dout, whole), count, columns, dout_, width_, kQueries);
    transpose(dout_, words_, dout_turned_, kQueries, kQueries, words_);
    turn_down(dout_, kQueries, width_, dout_down_);
    if (kPair > 1) take_rows(rows(from_.dout, whole), count, columns, dout_, width_, kQueries);
    take_rows(rows(from_.out, whole), count, columns, out_, width_, kQueries);
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
    const int64_t from = strip.from * kLanes, along = from / kPair;
    const int64_t row = strip.key * words_, sum = strip.key * width_;
    const int64_t queries = strip.vectors() * kLanes, vectors = width_ / kLanes;
    multiply({keys_ + row, words_, 1, q_turned_ + from, kQueries, powers_ + from, kQueries,
              strip.keys, strip.vectors(), task_.columns / kPair, false, task_.scale * kLog2e});
    multiply({values_ + row, words_, 1, dout_turned_ + from, kQueries, slopes_ + from, kQueries,
              strip.keys, strip.vectors(), task_.columns / kPair, false});
    if (strip.masked) hide(sight, strip, powers_);
    slope(strip);
    multiply({powers_ + along, kQueries, 1, dout_down_ + along * width_, width_, dvalues_ + sum,
              width_, strip.keys, vectors, queries / kPair, true});
    multiply({slopes_ + along, kQueries, 1, q_down_ + along * width_, width_, dkeys_ + sum, width_,
              strip.keys, vectors, queries / kPair, true});
    multiply({keys_down_ + row, 1, width_, slopes_down_ + from, kQueries, dq_ + from, kQueries,
              task_.columns, strip.vectors(), strip.keys / kPair, true});
  }

  // Scores to weights, gradients of weights to gradients of scores; words along, and down.
  void slope(const Strip& strip) {
    for (int64_t v = strip.from * kLanes; v < strip.to * kLanes; v += kLanes) {
      const Floats sum = load(sums_ + v), mean = load(means_ + v);
      for (int64_t k = 0; k < strip.keys; k += kPair) {
        Floats weight[kPair], slope[kPair];
        for (int64_t i = 0; i < kPair; ++i) {
          const int64_t at = (k + i) * kQueries + v;
          weight[i] = power_of_two(load(powers_ + at) - sum);
          slope[i] = weight[i] * (load(slopes_ + at) - mean);
        }
        put(k * kQueries + v / kPair, weight, powers_);
        put(k * kQueries + v / kPair, slope, slopes_);
#ifdef MJ_PAIRS
        _mm512_storeu_si512(slopes_down_ + k / kPair * kQueries + v,
                            in_turn(as_bf16(slope[0], slope[1])));
#endif
      }
    }
  }

#ifdef MJ_PAIRS
  // Of two rows: what was there before was read in the turns of vectors before.
  static void put(int64_t at, const Floats (&rows)[kPair], float* to) {
    const __m512i words = as_bf16(rows[0], rows[1]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + at), _mm512_castsi512_si256(words));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + at + kQueries),
                        _mm512_extracti64x4_epi64(words, 1));
  }
#else
  static void put(int64_t at, const Floats (&rows)[kPair], float* to) { store(to + at, rows[0]); }
#endif

  // Where the same words lie down.
  float* down_of(float* along, int64_t rows) {
    return kPair == 1 ? along : room_.take(rows * words_);
  }

  const Attention& task_;
  const AttentionInputs& from_;
  int64_t sequence_, group_, width_, words_, padded_;
  Room room_;
  float *keys_, *keys_down_, *values_, *dkeys_, *dvalues_, *powers_, *slopes_, *slopes_down_, *q_,
      *q_down_, *q_turned_, *dout_, *dout_down_, *dout_turned_, *out_, *dq_, *sums_, *means_;
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
