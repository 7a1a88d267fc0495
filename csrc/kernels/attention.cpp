#include "kernels/attention.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <type_traits>

#include "check.h"
#include "kernels/dtype.h"
#include "kernels/pool.h"

namespace mj {
namespace {

constexpr int64_t kQueries = 64, kKeys = 64;  // of a block
constexpr int64_t kStrip = 16;  // keys of a part of a block that not all of its queries see
constexpr int64_t kChunk = 8;   // blocks of queries that share a block of keys, once it is fp32
constexpr int64_t kAhead = 12;  // rows that are fetched before their turn: they lie far apart
constexpr int64_t kLine = 16;   // floats of a cache line
constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kLowest = -1e30f;  // below every score: a difference to it is a number
constexpr float kLog2e = 1.44269504f;

int64_t size_of(int dtype) { return dtype == kFp32 ? 4 : 2; }

// Numbers from row to row in scratch memory, where words hold `pair` of them.
int64_t width_of(const Attention& task, int64_t pair) {
  return (task.columns + pair * kLine - 1) / (pair * kLine) * (pair * kLine);
}

struct ForwardPiece {
  int64_t sequence, head;
  Stretch blocks;
  const void *q, *k, *v;
  void* out;
  float* sums;
};

struct BackwardPiece {
  int64_t sequence, group;
  const AttentionInputs* from;
  void *dq, *dk, *dv;
};

}  // namespace
}  // namespace mj

#define MJ_CODE "kernels/attention_lanes.h"
#include "kernels/every_machine.h"

#if MJ_X86
#define MJ_LANES 16
#define MJ_PAIRS
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")
namespace mj::avx512_bf16 {
namespace {
#include "kernels/lanes.h"
#include "kernels/attention_lanes.h"
}  // namespace
}  // namespace mj::avx512_bf16
#pragma GCC pop_options
#undef MJ_PAIRS
#undef MJ_LANES
#endif

namespace mj {
namespace {

// Whether products are taken of bf16 pairs; by the code of avx512_bf16.
bool in_pairs(const Attention& task) {
  return MJ_X86 && machine() == Machine::avx512_bf16 && task.dtype == kBf16;
}

#if MJ_X86
#define MJ_CHOSEN_OF(task, function) \
  (in_pairs(task) ? &mj::avx512_bf16::function : MJ_CHOSEN(function))
#else
#define MJ_CHOSEN_OF(task, function) MJ_CHOSEN(function)
#endif

void check(const Attention& task) {
  const auto least = std::min({task.queries, task.keys, task.sequences, task.heads, task.groups});
  MJ_CHECK(least >= 0, "sizes must not be negative, got ", least);
  MJ_CHECK(task.queries <= task.keys, "queries must be at most the keys, ", task.keys, ", got ",
           task.queries);
  MJ_CHECK(task.keys <= 1 << 30, "keys must be at most 2^30, got ", task.keys);
  MJ_CHECK(task.groups > 0 ? task.heads % task.groups == 0 : task.heads == 0,
           "heads must be a multiple of key heads, ", task.groups, ", got ", task.heads);
  MJ_CHECK(task.columns % 8 == 0 && task.columns > 0 && task.columns <= 256,
           "columns must be 8, 16, ... or 256, got ", task.columns);
  MJ_CHECK(task.threads >= 1, "threads must be at least 1, got ", task.threads);
}

// This thread's memory: kept, for fresh pages cost as much as the work.
float* scratch(int64_t floats) {
  thread_local std::unique_ptr<float[]> kept;
  thread_local int64_t size = 0;
  if (floats > size) {
    kept.reset();
    kept.reset(new float[static_cast<size_t>(floats + kLine)]);
    size = floats;
  }
  const auto past = reinterpret_cast<uintptr_t>(kept.get()) / sizeof(float) % kLine;
  return kept.get() + (kLine - past) % kLine;
}

}  // namespace

void attention_forward(const Attention& task, const void* q, const void* k, const void* v,
                       void* out, float* sums) {
  check(task);
  const auto work = MJ_CHOSEN_OF(task, attention_forward_blocks);
  const int64_t width = width_of(task, in_pairs(task) ? 2 : 1);
  const Pieces blocks{(task.queries + kQueries - 1) / kQueries, kChunk};
  const int64_t heads = task.sequences * task.heads, parts = blocks.count();
  const int64_t floats = (2 * kKeys + kQueries + 2 * kChunk * kQueries) * width +
                         kKeys * kQueries + 2 * kChunk * kQueries;
  each_piece(task.threads, heads * parts, [&](int64_t piece) {
    const int64_t head = piece % heads, part = parts - 1 - piece / heads;  // the longest first
    work(task, {head / task.heads, head % task.heads, blocks[part], q, k, v, out, sums},
         scratch(floats));
  });
}

void attention_backward(const Attention& task, const AttentionInputs& from, void* dq, void* dk,
                        void* dv) {
  check(task);
  const auto work = MJ_CHOSEN_OF(task, attention_backward_group);
  const int64_t width = width_of(task, in_pairs(task) ? 2 : 1);
  const int64_t keys = (task.keys + kStrip - 1) / kStrip * kStrip;
  const int64_t floats =
      (4 * keys + 6 * kQueries) * width + 3 * kKeys * kQueries + 2 * kQueries;
  each_piece(task.threads, task.sequences * task.groups, [&](int64_t piece) {
    work(task, {piece / task.groups, piece % task.groups, &from, dq, dk, dv}, scratch(floats));
  });
}

}  // namespace mj
