// What kernels need of CUDA, in words that an emulation on the CPU has too (MJ_EMULATED).
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "check.h"

namespace mj {

// A cudaStream_t; null is the default stream.
using Stream = void*;

// Blocks along x and y; at most 2^31 - 1 and 65535.
struct Grid {
  int64_t x = 1, y = 1;
};

}  // namespace mj

#ifdef MJ_EMULATED
#include "cuda/emulated.h"
#elif !defined(__CUDACC__)
#define MJ_BOTH inline  // bindings see what a kernel is asked, and no kernel
#else
#include <cuda_runtime.h>

#define MJ_BOTH __host__ __device__ __forceinline__
#define MJ_DEVICE __device__ __forceinline__
// Threads of a block, and how many blocks a multiprocessor must hold at a time: registers are then
// few enough. Some 40 kB read ahead on each keep the memory of a Hopper busy.
#define MJ_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)

namespace mj {

constexpr unsigned kWholeWarp = 0xffffffffu;

// What lane (own ^ step) of the warp holds; all lanes call it.
template <typename T>
MJ_DEVICE T from_lane_across(T value, int step) {
  return __shfl_xor_sync(kWholeWarp, value, step);
}

// Whether any lane of the warp says so; all lanes call it.
MJ_DEVICE bool any_of_warp(bool own) { return __any_sync(kWholeWarp, own) != 0; }

// Memory that the threads of a block share, of the size that `launch` was given.
template <typename T>
MJ_DEVICE T* shared_memory() {
  extern __shared__ __align__(16) unsigned char mj_shared[];
  return reinterpret_cast<T*>(mj_shared);
}

// Start kernel(args...) on a stream. Raises runtime_error that names it when CUDA refuses.
template <typename... P, typename... A>
void launch(const char* name, void (*kernel)(P...), Grid grid, int threads, size_t shared,
            Stream stream, A... args) {
  MJ_CHECK(grid.x < int64_t{1} << 31 && grid.y < 65536, name, ": a grid of ", grid.x, " x ",
           grid.y, " blocks is beyond 2^31 x 65536");
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
  kernel<<<blocks, threads, shared, static_cast<cudaStream_t>(stream)>>>(args...);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(error));
  }
}

}  // namespace mj
#endif
