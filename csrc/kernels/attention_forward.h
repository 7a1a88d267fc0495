// Mixed values of blocks of queries: see every_machine.h.

// 2^x within 2 units of the last place, for x below 128; 0 below -150.
MJ_INLINE Floats power_of_two(Floats x) {
  x = at_least(x, all(-160.0f));
  const Floats magic = all(0x1.8p23f);  // added, it leaves a whole number in the lowest bits
  const Floats shifted = x + magic;
  const Floats n = shifted - magic;
  const Floats r = x - n;
  Floats q = fma(r, all(0x1.44138ap-13f), all(0x1.5f089p-10f));
  q = fma(r, q, all(0x1.3b2a54p-7f));
  q = fma(r, q, all(0x1.c6af6cp-5f));
  q = fma(r, q, all(0x1.ebfbep-3f));
  q = fma(r, q, all(0x1.62e43p-1f));
  const Floats power = fma(r, q, all(1.0f));
#if MJ_LANES == 16
  return (Floats)_mm512_scalef_ps((__m512)power, (__m512)n);
#else
  const Ints whole = bits_of(shifted) - bits_of(magic);
  const Ints half = whole >> 1;  // two factors: one alone ends at 2^-126
  return power * floats_of((half + 127) << 23) * floats_of((whole - half + 127) << 23);
#endif
}

// What a block of queries has found: out lies transposed, [width, kQueries].
struct Found {
  float *out, *most, *sum;
};

// Scores become powers, words down, relative to the maximum so far; what was found before is scaled to it.
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
#ifdef MJ_PAIRS
      _mm512_storeu_si512(score + k / kPair * kQueries, in_turn(as_bf16(power, next)));
#else
      store(score + k * kQueries, power);
      store(score + (k + 1) * kQueries, next);
#endif
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

// One query head of one sequence: the blocks of queries [blocks.first, blocks.last).
class Forward {
 public:
  Forward(const Attention& task, int64_t sequence, int64_t head, float* scratch)
      : task_(task), sequence_(sequence), head_(head), width_(width_of(task, kPair)),
        room_{scratch},
        scores_(room_.take(kKeys * kQueries)), rows_(room_.take(kQueries * width_)),
        keys_(room_.take(kKeys * width_ / kPair)), values_(room_.take(kKeys * width_ / kPair)) {}

  void begin(const void* q, int64_t block) {
    const int64_t query = block * kQueries, n = count_++;
    sights_[n] = sight_of(task_, sequence_, query);
    const auto from = rows_of(q, task_.q_strides, query, sequence_, head_, task_.dtype);
    take_along(from, sights_[n].count, task_.columns, rows_, width_, kQueries);
    turned_[n] = room_.take(width_ / kPair * kQueries);
    transpose(rows_, width_ / kPair, turned_[n], kQueries, kQueries, width_ / kPair);
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
        take_along(rows, block.last - key, task_.columns, to, width_, kKeys);
      };
      take(k, task_.k_strides, keys_);
#ifdef MJ_PAIRS
      take(v, task_.v_strides, rows_);
      turn_down(rows_, kKeys, width_, values_);
#else
      take(v, task_.v_strides, values_);
#endif
      for (int64_t n = 0; n < count_; ++n) {
        each_strip(sights_[n], block, [&](const Strip& strip) { mix(n, strip, strip.key - key); });
      }
    }
  }

  void finish(int64_t n, int64_t block, void* out, float* sums) {
    const int64_t query = block * kQueries, count = sights_[n].count;
    const auto strides = strides_of(task_, task_.heads);
    const auto to = rows_of(out, strides, query, sequence_, head_, task_.dtype);
    for (int64_t v = 0; v < kQueries; v += kLanes) {
      const Floats sum = load(found_[n].sum + v);
      const Floats share = sum == 0.0f ? Floats{} : 1.0f / sum;
      for (int64_t d = 0; d < task_.columns; ++d) {
        float* const x = found_[n].out + d * kQueries + v;
        store(x, load(x) * share);
      }
    }
    transpose(found_[n].out, kQueries, rows_, width_, width_, kQueries);
    give_rows(rows_, width_, 1.0f, count, task_.columns, to);
    float* const whole = sums + (sequence_ * task_.heads + head_) * task_.queries + query;
    for (int64_t i = 0; i < count; ++i) {
      const float sum = found_[n].sum[i];
      whole[i] = sum == 0.0f ? -kNever : found_[n].most[i] + std::log2(sum);
    }
  }

 private:
  void mix(int64_t n, const Strip& strip, int64_t row) {
    const int64_t from = strip.from * kLanes;
    const int64_t words = width_ / kPair;
    multiply({keys_ + row * words, words, 1, turned_[n] + from, kQueries, scores_ + from, kQueries,
              strip.keys, strip.vectors(), task_.columns / kPair, false, task_.scale * kLog2e});
    if (strip.masked) hide(sights_[n], strip, scores_);
    weigh(found_[n], strip, task_.columns, scores_);
    multiply({values_ + row * words, 1, width_, scores_ + from, kQueries, found_[n].out + from,
              kQueries, task_.columns, strip.vectors(), strip.keys / kPair, true});
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
  const auto [first, last] = piece.blocks;
  for (int64_t block = first; block < last; ++block) work.begin(piece.q, block);
  work.look(piece.k, piece.v);
  for (int64_t block = first; block < last; ++block) {
    work.finish(block - first, block, piece.out, piece.sums);
  }
}
