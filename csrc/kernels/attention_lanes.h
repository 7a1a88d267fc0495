// Blocks of queries against blocks of keys: see every_machine.h. Scores lie transposed, keys down and
// queries along the vectors: maxima and sums over keys then are those of whole vectors.
#include "kernels/attention_tiles.h"

// Which keys a block of queries may see.
struct Sight {
  int64_t place;            // the last key that its first query sees
  int64_t count, vectors;   // queries, and vectors that hold them
  int64_t least, most;      // of the first keys they see
  Ints first[kQueries / kLanes];
  int64_t least_of[kQueries / kLanes];  // of each vector
};

Sight sight_of(const Attention& task, int64_t sequence, int64_t query) {
  Sight sight;
  sight.place = query + task.keys - task.queries;
  sight.count = std::min(kQueries, task.queries - query);
  sight.vectors = (sight.count + kLanes - 1) / kLanes;
  sight.least = std::numeric_limits<int32_t>::max();
  sight.most = 0;
  for (int64_t vector = 0; vector < sight.vectors; ++vector) {
    int64_t least = std::numeric_limits<int32_t>::max();
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const int64_t q = std::min(vector * kLanes + lane, sight.count - 1);
      const int32_t given =
          task.first == nullptr ? 0 : task.first[sequence * task.queries + query + q];
      sight.first[vector][lane] = std::max(0, given);
      least = std::min<int64_t>(least, std::max(0, given));
      sight.most = std::max<int64_t>(sight.most, given);
    }
    sight.least_of[vector] = least;
    sight.least = std::min(sight.least, least);
  }
  return sight;
}

// Keys from `key` on, `keys` of them, and the vectors of queries that may see any.
struct Strip {
  int64_t key, keys, from, to;
  bool masked;  // not all see all

  int64_t vectors() const { return to - from; }
};

// work(strip) for parts of a block of keys that queries see: all of it, or, where some do not, strips.
template <typename Work>
MJ_INLINE void each_strip(const Sight& sight, Stretch block, const Work& work) {
  const bool whole = block.last - block.first == kKeys;
  if (whole && block.last <= sight.place + 1 && block.first >= sight.most) {
    work(Strip{block.first, kKeys, 0, sight.vectors, false});
    return;
  }
  const int64_t end = std::min(block.last, sight.place + sight.count);
  for (int64_t key = block.first; key < end; key += kStrip) {
    const int64_t from = std::max<int64_t>(0, key - sight.place) / kLanes;
    int64_t to = sight.vectors;
    while (to > from && sight.least_of[to - 1] >= key + kStrip) --to;
    if (from < to) work(Strip{key, kStrip, from, to, true});
  }
}

// The score if the query of that lane sees the key.
MJ_INLINE Floats seen(const Sight& sight, int64_t key, int64_t vector, Floats score) {
  Ints last;
  for (int lane = 0; lane < MJ_LANES; ++lane) last[lane] = lane;
  last += static_cast<int32_t>(sight.place + vector * kLanes);
  const Ints here = static_cast<int32_t>(key) - Ints{};
  return (here <= last) & (here >= sight.first[vector]) ? score : all(kNever);
}

void hide(const Sight& sight, const Strip& strip, float* scores) {
  for (int64_t k = 0; k < strip.keys; ++k) {
    for (int64_t v = strip.from; v < strip.to; ++v) {
      float* const score = scores + k * kQueries + v * kLanes;
      store(score, seen(sight, strip.key + k, v, load(score)));
    }
  }
}

// What a block of queries has found: out lies transposed, [width, kQueries].
struct Found {
  float *out, *most, *sum;
};

// Scores become powers, relative to the maximum so far; what was found before is scaled to it.
void weigh(const Found& found, const Strip& strip, int64_t columns, float* scores) {
  for (int64_t v = strip.from; v < strip.to; ++v) {
    float* const score = scores + v * kLanes;
    const Floats before = load(found.most + v * kLanes);
    Floats most = before, other = before;
    for (int64_t k = 0; k < strip.keys; k += 2) {
      most = at_least(load(score + k * kQueries), most);
      other = at_least(load(score + (k + 1) * kQueries), other);
    }
    most = at_least(most, other);
    Floats sum = {}, rest = {};
    for (int64_t k = 0; k < strip.keys; k += 2) {
      const Floats power = power_of_two(load(score + k * kQueries) - most);
      const Floats next = power_of_two(load(score + (k + 1) * kQueries) - most);
      store(score + k * kQueries, power);
      store(score + (k + 1) * kQueries, next);
      sum += power;
      rest += next;
    }
    const Floats factor = power_of_two(before - most);
    store(found.most + v * kLanes, most);
    store(found.sum + v * kLanes, fma(load(found.sum + v * kLanes), factor, sum + rest));
    for (int64_t d = 0; d < columns; ++d) {
      float* const out = found.out + d * kQueries + v * kLanes;
      store(out, load(out) * factor);
    }
  }
}

// Addresses in scratch memory, one after the other, each at a cache line.
struct Room {
  float* next;

  float* take(int64_t floats) {
    float* const here = next;
    next += (floats + kLine - 1) / kLine * kLine;
    return here;
  }
};

Rows rows_of(const void* at, const std::array<int64_t, 3>& strides, int64_t position,
             int64_t sequence, int64_t head, int dtype) {
  const int64_t numbers = position * strides[0] + sequence * strides[1] + head * strides[2];
  return {static_cast<const char*>(at) + numbers * size_of(dtype), strides[0], dtype};
}

// Strides of a contiguous tensor.
std::array<int64_t, 3> strides_of(const Attention& task, int64_t heads) {
  return {task.sequences * heads * task.columns, heads * task.columns, task.columns};
}

// One query head of one sequence: the blocks of queries [blocks.first, blocks.last).
class Forward {
 public:
  Forward(const Attention& task, int64_t sequence, int64_t head, float* scratch)
      : task_(task), sequence_(sequence), head_(head), width_(width_of(task)), room_{scratch},
        scores_(room_.take(kKeys * kQueries)), rows_(room_.take(kQueries * width_)),
        keys_(room_.take(kKeys * width_)), values_(room_.take(kKeys * width_)) {}

  void begin(const void* q, int64_t block) {
    const int64_t query = block * kQueries, n = count_++;
    sights_[n] = sight_of(task_, sequence_, query);
    const auto from = rows_of(q, task_.q_strides, query, sequence_, head_, task_.dtype);
    take_rows(from, sights_[n].count, task_.columns, task_.scale * kLog2e, rows_, width_, kQueries);
    turned_[n] = room_.take(width_ * kQueries);
    transpose(rows_, width_, turned_[n], kQueries, kQueries, width_);
    found_[n] = {room_.take(width_ * kQueries), room_.take(kQueries), room_.take(kQueries)};
    std::fill_n(found_[n].out, width_ * kQueries, 0.0f);
    std::fill_n(found_[n].most, kQueries, kLowest);
    std::fill_n(found_[n].sum, kQueries, 0.0f);
  }

  void look(const void* k, const void* v) {
    int64_t first = task_.keys, last = 0;
    for (int64_t n = 0; n < count_; ++n) {
      first = std::min(first, sights_[n].least / kKeys * kKeys);
      last = std::max(last, sights_[n].place + sights_[n].count);
    }
    const int64_t group = head_ / (task_.heads / task_.groups);
    for (int64_t key = first; key < last; key += kKeys) {
      const Stretch block{key, std::min(task_.keys, key + kKeys)};
      const auto take = [&](const void* from, const std::array<int64_t, 3>& strides, float* to) {
        const auto rows = rows_of(from, strides, key, sequence_, group, task_.dtype);
        take_rows(rows, block.last - key, task_.columns, 1.0f, to, width_, kKeys);
      };
      take(k, task_.k_strides, keys_);
      take(v, task_.v_strides, values_);
      for (int64_t n = 0; n < count_; ++n) {
        each_strip(sights_[n], block, [&](const Strip& strip) { mix(n, strip, strip.key - key); });
      }
    }
  }

  void finish(int64_t n, int64_t block, void* out, float* sums) {
    const int64_t query = block * kQueries, count = sights_[n].count;
    const auto to = rows_of(out, strides_of(task_, task_.heads), query, sequence_, head_, task_.dtype);
    for (int64_t v = 0; v < kQueries; v += kLanes) {
      const Floats sum = load(found_[n].sum + v);
      const Floats share = sum == 0.0f ? Floats{} : 1.0f / sum;
      for (int64_t d = 0; d < task_.columns; ++d) {
        float* const x = found_[n].out + d * kQueries + v;
        store(x, load(x) * share);
      }
    }
    transpose(found_[n].out, kQueries, rows_, width_, width_, kQueries);
    give_rows(rows_, width_, 1.0f, count, task_.columns, const_cast<void*>(to.at), to.apart, to.dtype);
    float* const whole = sums + (sequence_ * task_.heads + head_) * task_.queries + query;
    for (int64_t i = 0; i < count; ++i) {
      const float sum = found_[n].sum[i];
      whole[i] = sum == 0.0f ? -kNever : found_[n].most[i] + std::log2(sum);
    }
  }

 private:
  void mix(int64_t n, const Strip& strip, int64_t row) {
    const int64_t from = strip.from * kLanes;
    multiply({keys_ + row * width_, width_, 1, turned_[n] + from, kQueries, scores_ + from, kQueries,
              strip.keys, strip.vectors(), task_.columns, false});
    if (strip.masked) hide(sights_[n], strip, scores_);
    weigh(found_[n], strip, task_.columns, scores_);
    multiply({values_ + row * width_, 1, width_, scores_ + from, kQueries, found_[n].out + from,
              kQueries, task_.columns, strip.vectors(), strip.keys, true});
  }

  const Attention& task_;
  int64_t sequence_, head_, width_, count_ = 0;
  Room room_;
  float *scores_, *rows_, *keys_, *values_;
  Sight sights_[kChunk];
  float* turned_[kChunk];
  Found found_[kChunk];
};

void attention_forward_blocks(const Attention& task, const ForwardPiece& piece, float* scratch) {
  Forward work(task, piece.sequence, piece.head, scratch);
  for (int64_t block = piece.blocks.first; block < piece.blocks.last; ++block) work.begin(piece.q, block);
  work.look(piece.k, piece.v);
  for (int64_t block = piece.blocks.first; block < piece.blocks.last; ++block) {
    work.finish(block - piece.blocks.first, block, piece.out, piece.sums);
  }
}

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
    const auto to = rows_of(dq, strides_of(task_, task_.heads), query, sequence_, head, task_.dtype);
    give_rows(q_, width_, task_.scale, sight.count, task_.columns, const_cast<void*>(to.at), to.apart,
              to.dtype);
  }

  void finish(void* dk, void* dv) {
    const auto strides = strides_of(task_, task_.groups);
    const auto k = rows_of(dk, strides, 0, sequence_, group_, task_.dtype);
    const auto v = rows_of(dv, strides, 0, sequence_, group_, task_.dtype);
    give_rows(dkeys_, width_, 1.0f / kLog2e, task_.keys, task_.columns, const_cast<void*>(k.at), k.apart, k.dtype);
    give_rows(dvalues_, width_, 1.0f, task_.keys, task_.columns, const_cast<void*>(v.at), v.apart, v.dtype);
  }

 private:
  // A block of queries, what came of them, and its gradient.
  void take(const Sight& sight, int64_t head, int64_t query) {
    const auto here = [&](const void* x, const std::array<int64_t, 3>& strides, float factor, float* to) {
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
    for (int64_t query = 0; query < task.queries; query += kQueries) work.look(head, query, piece.dq);
  }
  work.finish(piece.dk, piece.dv);
}
