#include "cuda/adam.h"

#include "cuda/adam_formulas.h"
#include "cuda/chunks.h"
#include "cuda/numbers.h"
#include "cuda/team.h"

namespace mj {

namespace {

// The numbers of this block's chunk of a list, and how many they are.
template <int kLists>
MJ_DEVICE int count_of(const Chunks<kLists>& chunks) {
  const int64_t first = int64_t{chunks.chunk[blockIdx.x]} * kChunk;
  const int64_t rest = chunks.sizes[chunks.tensor[blockIdx.x]] - first;
  return static_cast<int>(rest < kChunk ? rest : kChunk);
}

template <typename T, int kLists>
MJ_DEVICE T* start_of(const Chunks<kLists>& chunks, int list) {
  T* tensor = static_cast<T*>(chunks.tensors[list][chunks.tensor[blockIdx.x]]);
  const int64_t first = int64_t{chunks.chunk[blockIdx.x]} * kChunk;
  return tensor == nullptr ? nullptr : tensor + first;
}

template <typename T>
MJ_DEVICE bool is_even(const T* tensor) {
  return reinterpret_cast<uintptr_t>(tensor) % (kWide * sizeof(T)) == 0;
}

// Calls work.template operator()<V>(at) for runs of V numbers from `at`, of which this thread has
// some: of kWide where `even`, else, and at the end, of one.
template <typename Work>
MJ_DEVICE void each_run(int count, bool even, const Work& work) {
  const int runs = even ? count / kWide : 0;
  for (int run = threadIdx.x; run < runs; run += kChunkThreads) {
    work.template operator()<kWide>(run * kWide);
  }
  for (int at = runs * kWide + static_cast<int>(threadIdx.x); at < count; at += kChunkThreads) {
    work.template operator()<1>(at);
  }
}

template <int V, typename T>
MJ_DEVICE Pack<T, V> read(const T* from) {
  return *reinterpret_cast<const Pack<T, V>*>(from);
}

template <int V, typename T>
MJ_DEVICE void write(T* to, const Pack<T, V>& value) {
  *reinterpret_cast<Pack<T, V>*>(to) = value;
}

template <int V>
MJ_DEVICE void write_rounded(void* to, int dtype, int at, const Pack<float, V>& value) {
  const auto as = [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    Pack<T, V> out;
#pragma unroll
    for (int i = 0; i < V; ++i) out.set(i, value[i]);
    write<V>(static_cast<T*>(to) + at, out);
  };
  if (dtype == kBf16) return as(static_cast<Bf16*>(nullptr));
  if (dtype == kFp16) return as(static_cast<Fp16*>(nullptr));
  as(static_cast<float*>(nullptr));
}

// first_i += (1 - b1) (g_i - first_i),  second_i += (1 - b2) (g_i^2 - second_i),
// parameter_i = (1 - lr decay) parameter_i - rate first_i / (sqrt(second_i) unbias + eps)
// g_i = factor gradient_i; i numbers of a tensor. A block has one chunk.
template <typename G>
__global__ void MJ_BOUNDS(kChunkThreads, 2)
    move(Chunks<5> chunks, AdamNumbers rule, int rounded_dtype, const float* factor,
         const float* stop) {
  if (stop != nullptr && *stop != 0.0f) return;
  if (factor != nullptr) rule.factor *= *factor;
  float* const parameter = start_of<float>(chunks, 0);
  const G* const gradient = start_of<G>(chunks, 1);
  float* const first = start_of<float>(chunks, 2);
  float* const second = start_of<float>(chunks, 3);
  const int size = rounded_dtype == kFp32 ? 4 : 2;
  char* tensor = static_cast<char*>(chunks.tensors[4][chunks.tensor[blockIdx.x]]);
  if (tensor != nullptr) tensor += int64_t{chunks.chunk[blockIdx.x]} * kChunk * size;
  const bool even = is_even(parameter) && is_even(gradient) && is_even(first) && is_even(second) &&
                    reinterpret_cast<uintptr_t>(tensor) % (kWide * size) == 0;
  each_run(count_of(chunks), even, [&]<int V>(int at) {
    const Pack<G, V> slope = read<V>(gradient + at);
    Pack<float, V> p = read<V>(parameter + at), m = read<V>(first + at), v = read<V>(second + at);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const AdamState state = moved(rule, {p[i], m[i], v[i]}, rule.factor * slope[i]);
      p.set(i, state.parameter);
      m.set(i, state.first);
      v.set(i, state.second);
    }
    write<V>(parameter + at, p);
    write<V>(first + at, m);
    write<V>(second + at, v);
    if (tensor != nullptr) write_rounded<V>(tensor, rounded_dtype, at, p);
  });
}

// partial_c = sum_i x_i^2 over the numbers i of chunk c, in fp32: of a thread first, then of the
// block, in an order that depends on the sizes alone.
template <typename T>
__global__ void MJ_BOUNDS(kChunkThreads, 2) add_squares(Chunks<1> chunks, float* partial) {
  __shared__ float scratch[32];
  const T* const x = start_of<T>(chunks, 0);
  float sum = 0.0f;
  each_run(count_of(chunks), is_even(x), [&]<int V>(int at) {
    const Pack<T, V> pack = read<V>(x + at);
#pragma unroll
    for (int i = 0; i < V; ++i) sum += pack[i] * pack[i];
  });
  sum = over_team(sum, kChunkThreads, scratch, Sum{});
  if (threadIdx.x == 0) partial[chunks.first + blockIdx.x] = sum;
}

// sum = sum_c partial_c in fp64: thread t adds the chunks t, t + 512, ..., then the threads in order.
__global__ void MJ_BOUNDS(kChunkThreads, 1) add_chunks(const float* partial, int64_t count, double* sum) {
  __shared__ double sums[kChunkThreads];
  double own = 0.0;
  for (int64_t at = threadIdx.x; at < count; at += kChunkThreads) own += partial[at];
  sums[threadIdx.x] = own;
  __syncthreads();
  for (unsigned half = kChunkThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) *sum = sums[0];
}

// x_i *= factor where kScales; bad = 1 if any x_i was not finite (all who write it write the same).
template <typename T, bool kScales>
__global__ void MJ_BOUNDS(kChunkThreads, 3)
    look_at(Chunks<1> chunks, float factor, const float* factor_at, float* bad) {
  T* const x = start_of<T>(chunks, 0);
  if (factor_at != nullptr) factor *= *factor_at;
  bool good = true;
  each_run(count_of(chunks), is_even(x), [&]<int V>(int at) {
    Pack<T, V> pack = read<V>(static_cast<const T*>(x) + at);
#pragma unroll
    for (int i = 0; i < V; ++i) good &= is_finite(pack[i]);
    if constexpr (kScales) {
#pragma unroll
      for (int i = 0; i < V; ++i) pack.set(i, pack[i] * factor);
      write<V>(x + at, pack);
    }
  });
  if (!good && bad != nullptr) *bad = 1.0f;
}

}  // namespace

void adam_step(const AdamStep& task, Stream stream) {
  MJ_CHECK(task.rule.step >= 1, "step must be at least 1, got ", task.rule.step);
  const AdamNumbers numbers = numbers_of(task.rule);
  with_dtype(task.rounded_dtype, [](auto*) {});
  with_dtype(task.dtype, [&](auto* null) {
    using G = std::remove_pointer_t<decltype(null)>;
    const Addresses lists[5] = {task.parameters, task.gradients, task.first, task.second,
                                task.rounded};
    send_chunks<5>(task.sizes, lists, [&](const Chunks<5>& chunks, int count) {
      launch("adam_step", move<G>, {count}, kChunkThreads, 0, stream, chunks, numbers,
             task.rounded_dtype, task.factor, task.stop);
    });
  });
}

int64_t squares_scratch(std::span<const int64_t> sizes) { return chunks_of(sizes); }

void sum_of_squares(const TensorList& list, float* scratch, double* sum, Stream stream) {
  with_dtype(list.dtype, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const Addresses lists[1] = {list.tensors};
    send_chunks<1>(list.sizes, lists, [&](const Chunks<1>& chunks, int count) {
      launch("sum_of_squares", add_squares<T>, {count}, kChunkThreads, 0, stream, chunks, scratch);
    });
  });
  launch("sum_of_squares", add_chunks, {1}, kChunkThreads, 0, stream,
         static_cast<const float*>(scratch), chunks_of(list.sizes), sum);
}

void scale_all(const TensorList& list, float factor, const float* factor_at, float* bad,
               Stream stream) {
  with_dtype(list.dtype, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const Addresses lists[1] = {list.tensors};
    send_chunks<1>(list.sizes, lists, [&](const Chunks<1>& chunks, int count) {
      launch("scale_all", look_at<T, true>, {count}, kChunkThreads, 0, stream, chunks, factor,
             factor_at, bad);
    });
  });
}

void find_bad(const TensorList& list, float* bad, Stream stream) {
  with_dtype(list.dtype, [&](auto* null) {
    using T = std::remove_pointer_t<decltype(null)>;
    const Addresses lists[1] = {list.tensors};
    send_chunks<1>(list.sizes, lists, [&](const Chunks<1>& chunks, int count) {
      launch("find_bad", look_at<T, false>, {count}, kChunkThreads, 0, stream, chunks, 1.0f,
             static_cast<const float*>(nullptr), bad);
    });
  });
}

}  // namespace mj
