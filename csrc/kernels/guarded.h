// What a piece of work must neither change nor lose on a thread that is not its caller's.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>

namespace mj {

// How this thread treats numbers: denormal ones as 0 or not, and how it rounds.
class FloatMode {
 public:
#if defined(__x86_64__)
  static FloatMode here() { return FloatMode(__builtin_ia32_stmxcsr() & ~kFlags); }
  void set() const { __builtin_ia32_ldmxcsr(bits_); }
#else
  static FloatMode here() { return FloatMode(0); }
  void set() const {}
#endif
  bool operator==(const FloatMode&) const = default;

 private:
  static constexpr uint32_t kFlags = 0x3f;  // what has happened, not what shall

  explicit FloatMode(uint32_t bits) : bits_(bits) {}

  uint32_t bits_;
};

// A callable of (piece) that any thread may call: it computes as on the thread that made it, and
// what it throws is thrown by `finish` there; pieces after that are left out.
template <typename Work>
class Guarded {
 public:
  explicit Guarded(const Work& work) : work_(work) {}

  void operator()(int64_t piece) const noexcept {
    if (failed_.load(std::memory_order_relaxed)) return;
    const FloatMode own = FloatMode::here();
    if (own != mode_) mode_.set();
    try {
      work_(piece);
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
    if (own != mode_) own.set();
  }

  void finish() const {
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

 private:
  const Work& work_;
  const FloatMode mode_ = FloatMode::here();
  mutable std::atomic<bool> failed_{false};
  mutable std::exception_ptr error_;
};

}  // namespace mj
