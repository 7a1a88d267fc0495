// CUDA's words on the CPU, one block after the other, each thread a fiber: kernels really run in
// tests where no GPU is. Fibers change only where threads wait for each other, in an order that
// MJ_EMULATED_REVERSED turns round: a kernel that needs a barrier it lacks gives other results.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __restrict__ __restrict
#define MJ_BOTH inline
#define MJ_DEVICE inline
#define MJ_BOUNDS(threads, blocks)

namespace mj {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

namespace emulated {

enum class Wait { nothing, warp, block, over };

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  Wait wait = Wait::nothing;
};

constexpr size_t kStack = 256 * 1024;
constexpr size_t kShared = 48 * 1024;  // of a block, unless a kernel's attribute asks for more

struct Machine {
  ucontext_t scheduler;
  std::vector<Fiber> fibers;
  std::vector<uint64_t> slots;  // what each thread shows its warp
  std::vector<unsigned char> shared;
  std::function<void()> kernel;
  Index thread, block, block_size, grid_size;
};

inline Machine& machine() {
  static Machine one;
  return one;
}

inline void enter() {
  Machine& m = machine();
  m.kernel();
  m.fibers[m.thread.x].wait = Wait::over;
  swapcontext(&m.fibers[m.thread.x].context, &m.scheduler);
}

inline void wait_for(Wait what) {
  Machine& m = machine();
  Fiber& own = m.fibers[m.thread.x];
  own.wait = what;
  swapcontext(&own.context, &m.scheduler);
}

inline void start(Fiber& fiber) {
  fiber.stack.resize(kStack);
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.data();
  fiber.context.uc_stack.ss_size = fiber.stack.size();
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, enter, 0);
  fiber.wait = Wait::nothing;
}

// Let go on those of [first, last) that all wait for the same thing; whether it was so.
inline bool release(unsigned first, unsigned last, Wait what, bool over_counts) {
  Machine& m = machine();
  bool any = false;
  for (unsigned i = first; i < last; ++i) {
    const Wait wait = m.fibers[i].wait;
    if (wait == Wait::over && over_counts) continue;
    if (wait != what) return false;
    any = true;
  }
  for (unsigned i = first; i < last && any; ++i) {
    if (m.fibers[i].wait == what) m.fibers[i].wait = Wait::nothing;
  }
  return any;
}

inline void run_ready(bool reversed) {
  Machine& m = machine();
  const unsigned threads = m.block_size.x;
  for (unsigned i = 0; i < threads; ++i) {
    const unsigned next = reversed ? threads - 1 - i : i;
    if (m.fibers[next].wait != Wait::nothing) continue;
    m.thread.x = next;
    swapcontext(&m.scheduler, &m.fibers[next].context);
  }
}

inline void run_block(const char* name, bool reversed) {
  Machine& m = machine();
  const unsigned threads = m.block_size.x;
  for (unsigned i = 0; i < threads; ++i) start(m.fibers[i]);
  while (true) {
    run_ready(reversed);
    bool moved = release(0, threads, Wait::block, true), over = true;
    for (unsigned i = 0; i < threads; i += 32) {
      // a lane that is over can show nothing: a warp that then waits for it is at fault
      moved |= release(i, std::min(threads, i + 32), Wait::warp, false);
    }
    for (unsigned i = 0; i < threads; ++i) over &= m.fibers[i].wait == Wait::over;
    if (over) return;
    if (!moved) throw std::runtime_error(std::string(name) + ": threads wait for ever");
  }
}

}  // namespace emulated

inline const Index& thread_index() { return emulated::machine().thread; }
inline const Index& block_index() { return emulated::machine().block; }
inline const Index& block_size() { return emulated::machine().block_size; }
inline const Index& grid_size() { return emulated::machine().grid_size; }

template <typename T>
T from_lane_across(T value, int step) {
  static_assert(sizeof(T) <= 8);
  auto& m = emulated::machine();
  const unsigned own = m.thread.x;
  std::memcpy(&m.slots[own], &value, sizeof(T));
  emulated::wait_for(emulated::Wait::warp);
  std::memcpy(&value, &m.slots[own ^ static_cast<unsigned>(step)], sizeof(T));
  emulated::wait_for(emulated::Wait::warp);
  return value;
}

inline bool any_of_warp(bool own) {
  for (int step = 16; step > 0; step /= 2) own |= from_lane_across(own, step);
  return own;
}

template <typename T>
T* shared_memory() {
  return reinterpret_cast<T*>(emulated::machine().shared.data());
}

template <typename... P, typename... A>
void launch(const char* name, void (*kernel)(P...), Grid grid, int threads, size_t shared,
            Stream stream, A... args) {
  const bool fits = grid.x > 0 && grid.x < (int64_t{1} << 31) && grid.y > 0 && grid.y < 65536 &&
                    threads > 0 && threads <= 1024 && threads % 32 == 0;
  if (!fits || stream != nullptr || shared > emulated::kShared) {
    throw std::runtime_error(std::string(name) + ": invalid configuration argument");
  }
  auto& m = emulated::machine();
  if (m.fibers.size() < 1024) m.fibers.resize(1024);
  m.slots.resize(1024);
  m.shared.assign(emulated::kShared, 0xff);  // NaN to whoever reads what nobody wrote
  m.kernel = [=] { kernel(args...); };
  m.block_size.x = static_cast<unsigned>(threads);
  m.grid_size = {static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), 1};
  const bool reversed = std::getenv("MJ_EMULATED_REVERSED") != nullptr;
  for (m.block.y = 0; m.block.y < m.grid_size.y; ++m.block.y) {
    for (m.block.x = 0; m.block.x < m.grid_size.x; ++m.block.x) {
      emulated::run_block(name, reversed);
    }
  }
}

}  // namespace mj

inline void __syncthreads() { mj::emulated::wait_for(mj::emulated::Wait::block); }
#define threadIdx mj::thread_index()
#define blockIdx mj::block_index()
#define blockDim mj::block_size()
#define gridDim mj::grid_size()
