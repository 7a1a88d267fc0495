// Which keys which queries see: see every_machine.h.

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

// work(strip) for the parts of a block of keys that queries see: all of it, or, where some do not,
// strips.
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
