#include "kernels/pool.h"

#include <pthread.h>

#include <atomic>
#include <mutex>
#include <system_error>
#include <thread>

#include "kernels/machines.h"
#include "kernels/openmp.h"

namespace mj {
namespace {

constexpr int kLooks = 500;  // about 10 us: a thread that sleeps is back only after some 50

void rest() {
#if MJ_X86
  __builtin_ia32_pause();
#endif
}

// Wait until `value` is not `old`: look some times, then sleep.
template <typename T>
void wait_while(const std::atomic<T>& value, T old) {
  for (int look = 0; look < kLooks; ++look) {
    if (value.load(std::memory_order_acquire) != old) return;
    rest();
  }
  value.wait(old);
}

class Pool {
 public:
  bool run(int threads, int64_t count, void (*work)(const void*, int64_t), const void* data) {
    const std::unique_lock<std::mutex> alone(mutex_, std::try_to_lock);
    if (!alone.owns_lock()) return false;
    grow(threads - 1);
    work_ = work, data_ = data, count_ = count;
    next_ = 0;
    seats_ = threads - 1;
    open_ = true;
    ++calls_;
    calls_.notify_all();
    take();
    open_ = false;
    for (int inside = inside_; inside != 0; inside = inside_) wait_while(inside_, inside);
    return true;
  }

 private:
  void grow(int wanted) {
    try {
      for (; started_ < wanted; ++started_) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
      // the machine gives no more threads: those there are do the work
    }
  }

  // Do pieces until none is left.
  void take() {
    for (int64_t piece = next_++; piece < count_; piece = next_++) work_(data_, piece);
  }

  void serve() {
    uint32_t seen = 0;
    while (true) {
      wait_while(calls_, seen);
      seen = calls_;
      ++inside_;  // before `open_` is read: who closes it waits for us, or we see it closed
      if (open_ && seats_-- > 0) take();
      if (--inside_ == 0) inside_.notify_one();
    }
  }

  std::mutex mutex_;
  int started_ = 0;
  void (*work_)(const void*, int64_t) = nullptr;
  const void* data_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<int> seats_{0}, inside_{0};
  std::atomic<bool> open_{false};
  std::atomic<uint32_t> calls_{0};
};

std::atomic<Pool*> shared{nullptr};

// Never destroyed: its threads sleep in it until the process ends.
Pool& pool() {
  static const int forgotten = pthread_atfork(nullptr, nullptr, [] { shared = nullptr; });
  static_cast<void>(forgotten);  // a child has none of the threads: it makes a pool of its own
  Pool* found = shared;
  if (found != nullptr) return *found;
  auto* const made = new Pool;
  if (shared.compare_exchange_strong(found, made)) return *made;
  delete made;
  return *found;
}

}  // namespace

void run_pooled(int threads, int64_t count, void (*work)(const void* data, int64_t piece),
                const void* data) {
  if (threads > 1 && count > 1) {
    if (run_on_team(threads, count, work, data)) return;
    const auto useful = static_cast<int>(std::min<int64_t>(threads, count));
    if (pool().run(useful, count, work, data)) return;
  }
  for (int64_t piece = 0; piece < count; ++piece) work(data, piece);
}

}  // namespace mj
