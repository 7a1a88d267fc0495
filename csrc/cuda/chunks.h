// Lists of tensors cut into chunks, some hundred of which go with one launch as its arguments.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "cuda/device.h"

namespace mj {

constexpr int kChunk = 1 << 16;    // numbers of a chunk; only the last of a tensor has fewer
constexpr int kTensors = 36;       // of one launch
constexpr int kChunks = 320;       // of one launch, a block each
constexpr int kChunkThreads = 512;
constexpr int kWide = 4;           // numbers that a thread reads at a time

// Of `kLists` lists, what one launch works on: block b has chunk `chunk[b]` of tensor `tensor[b]`.
template <int kLists>
struct Chunks {
  void* tensors[kLists][kTensors];
  int64_t sizes[kTensors];
  int64_t first;  // number of the first chunk here among all of the lists
  int chunk[kChunks];
  uint8_t tensor[kChunks];
};

static_assert(sizeof(Chunks<5>) <= 3600, "arguments of a launch are 4 KB at most");

inline int64_t chunks_of(std::span<const int64_t> sizes) {
  int64_t all = 0;
  for (const int64_t size : sizes) all += (size + kChunk - 1) / kChunk;
  return all;
}

// Calls send(chunks, count) until all chunks of all tensors were sent, in order. A tensor that does
// not fit goes on in the next one. lists[l][t]: tensor t of list l.
template <int kLists, typename Send>
void send_chunks(std::span<const int64_t> sizes, std::span<void* const> const (&lists)[kLists],
                 const Send& send) {
  Chunks<kLists> out{};
  int tensors = 0, count = 0;
  int64_t sent = 0;
  const auto flush = [&] {
    if (count > 0) send(static_cast<const Chunks<kLists>&>(out), count);
    sent += count;
    out.first = sent;
    tensors = count = 0;
  };
  for (size_t t = 0; t < sizes.size(); ++t) {
    const int64_t parts = (sizes[t] + kChunk - 1) / kChunk;
    bool listed = false;
    for (int64_t part = 0; part < parts; ++part) {
      if (!listed) {
        for (int l = 0; l < kLists; ++l) out.tensors[l][tensors] = lists[l].empty() ? nullptr : lists[l][t];
        out.sizes[tensors++] = sizes[t];
        listed = true;
      }
      out.tensor[count] = static_cast<uint8_t>(tensors - 1);
      out.chunk[count++] = static_cast<int>(part);
      if (count < kChunks) continue;
      flush();
      listed = false;
    }
    if (tensors == kTensors) flush();
  }
  flush();
}

}  // namespace mj
