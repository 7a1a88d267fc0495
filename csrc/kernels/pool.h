// Threads: pieces of work for whichever is free.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/guarded.h"

namespace mj {

// Call work(data, piece) for the pieces [0, count), on at most `threads` threads, this one among them;
// returns when all are done. Which thread does a piece is left to chance: for results that do not
// depend on it, cut work into pieces by its size alone.
//
// The threads are torch's (openmp.h). A forked process, and one without OpenMP, starts its own when
// first asked for; they sleep between calls, and of several callers at a time one has them, the
// others do their work alone.
void run_pooled(int threads, int64_t count, void (*work)(const void* data, int64_t piece),
                const void* data);

// The same for a callable of (piece): what it throws is thrown here, after all pieces.
template <typename Work>
void each_piece(int threads, int64_t count, const Work& work) {
  if (threads <= 1 || count <= 1) {
    for (int64_t piece = 0; piece < count; ++piece) work(piece);
    return;
  }
  const Guarded guarded(work);
  run_pooled(
      threads, count,
      [](const void* data, int64_t piece) { (*static_cast<const Guarded<Work>*>(data))(piece); },
      &guarded);
  guarded.finish();
}

// A stretch of items, one piece.
struct Stretch {
  int64_t first, last;
};

// [0, items) cut into pieces of `size` items, the last one shorter.
struct Pieces {
  int64_t items, size;

  int64_t count() const { return (items + size - 1) / size; }
  Stretch operator[](int64_t piece) const {
    return {piece * size, std::min(items, (piece + 1) * size)};
  }
};

}  // namespace mj
