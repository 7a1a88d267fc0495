// Memory for numbers that one call works on, as large as the data.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <type_traits>

namespace mj {

// Uninitialised: its pages are first touched by the threads that use them.  In large pages where
// the system has them: otherwise a good part of the time goes into 4 KiB pages, one by one.
template <typename T>
class Scratch {
  static_assert(std::is_trivial_v<T>);

 public:
  explicit Scratch(size_t size) : bytes_(size * sizeof(T)) {
    if (bytes_ == 0) return;
    void* found = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<T*>(found);
#ifdef MADV_HUGEPAGE
    madvise(data_, bytes_, MADV_HUGEPAGE);  // a wish only
#endif
  }
  ~Scratch() {
    if (data_ != nullptr) munmap(data_, bytes_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  size_t bytes_;
  T* data_ = nullptr;
};

}  // namespace mj
