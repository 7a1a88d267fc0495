// Threads over rows and columns of a tensor, for what is done to each number alone.
#pragma once

#include <cstdint>

#include "cuda/device.h"

namespace mj {

constexpr int kTile = 256;  // threads of a block

// A block is `across` packs wide and kTile / across rows high; grid.x of them lie side by side, and
// grid.y of them take the rows in turn.
struct Tile {
  int across;
  Grid grid;
};

// Blocks that a GPU is given: some waves of those that run at a time. Twice as few for sums over
// rows, each of which is written once a block.
constexpr int64_t kBlocks = 2112, kSummingBlocks = 1056;

constexpr Tile tile_for(int64_t rows, int64_t packs, int64_t most = kBlocks) {
  int across = 1;
  while (across < kTile && across < packs) across *= 2;
  const int64_t wide = (packs + across - 1) / across;
  const int64_t high = (rows + kTile / across - 1) / (kTile / across);
  const int64_t allowed = most / wide > 0 ? most / wide : 1;
  return {across, {wide, high < allowed ? high : allowed}};
}

// Numbers of the partial sums of rows of `columns` (of the output), however wide a pack is.
constexpr int64_t tile_scratch(int64_t columns) {
  // at most kSummingBlocks / wide rows of partial sums, wide >= columns / (8 kTile)
  const int64_t wide = (columns + 8 * kTile - 1) / (8 * kTile);
  return (kSummingBlocks / (wide > 0 ? wide : 1) + 1) * columns;
}

#if defined(__CUDACC__) || defined(MJ_EMULATED)

// The place of one thread: its column of packs, its first row, and how far its next one is.
struct Place {
  int column;
  int64_t row, step;

  MJ_DEVICE explicit Place(int across)
      : column(static_cast<int>(blockIdx.x) * across + static_cast<int>(threadIdx.x) % across),
        row(int64_t{blockIdx.y} * (kTile / across) + threadIdx.x / across),
        step(int64_t{gridDim.y} * (kTile / across)) {}
};

// Calls work(row, read(row)) for the rows of this thread, in order; kAhead of them are read before
// there is work on the first.
template <int kAhead, typename Read, typename Work>
MJ_DEVICE void each_row(const Place& place, int64_t rows, const Read& read, const Work& work) {
  for (int64_t first = place.row; first < rows; first += kAhead * place.step) {
    decltype(read(first)) ahead[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (first + k * place.step < rows) ahead[k] = read(first + k * place.step);
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (first + k * place.step < rows) work(first + k * place.step, ahead[k]);
    }
  }
}

// Add up V sums of the threads of a block that have the same columns, from the first row to the
// last; the last thread's are then the whole. Returns whether this is that thread. All call it.
template <int V>
MJ_DEVICE bool add_rows(float (&sums)[V], int across) {
  float* block = shared_memory<float>();
  const int high = kTile / across;
  const int row = static_cast<int>(threadIdx.x) / across;
  const int column = static_cast<int>(threadIdx.x) % across;
  for (int turn = 0; turn < high; ++turn) {
    if (row == turn) {
#pragma unroll
      for (int i = 0; i < V; ++i) {
        if (turn > 0) sums[i] += block[i * across + column];
        block[i * across + column] = sums[i];
      }
    }
    __syncthreads();
  }
  return row == high - 1;
}

#endif

}  // namespace mj
