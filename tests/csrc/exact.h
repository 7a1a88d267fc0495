// What the programs of this folder share: memory of exactly the right size, for sanitizers to see
// the first byte beyond it, and a count of what is not as it must be.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <unordered_map>

namespace exact {

inline int faults = 0;

// Tells where something is wrong; the program goes on.
inline void check(bool right, const char* what, std::string_view of = "") {
  if (right) return;
  ++faults;
  std::printf("%s: \"%.*s\"\n", what, static_cast<int>(of.size()), of.data());
}

// Where memory comes from: if set, it ends where a page does, and the next page cannot be touched.
// Sanitizers do not see what masked instructions of vectors read and write; the processor does.
inline bool before_a_wall = false;
constexpr size_t kPage = 4096;

template <typename T>
struct Memory {
  using value_type = T;

  Memory() = default;
  template <typename U>
  Memory(const Memory<U>&) {}
  bool operator==(const Memory&) const = default;

  T* allocate(size_t count) {
    if (!before_a_wall) return static_cast<T*>(::operator new(count * sizeof(T)));
    const size_t bytes = count * sizeof(T), size = (bytes + kPage - 1) / kPage * kPage;
    void* const pages = mmap(nullptr, size + kPage, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char* const wall = static_cast<char*>(pages) + size;
    if (pages == MAP_FAILED || mprotect(wall, kPage, PROT_NONE) != 0) std::abort();
    mapped()[wall - bytes] = size;
    return reinterpret_cast<T*>(wall - bytes);
  }

  void deallocate(T* place, size_t count) {
    const auto found = mapped().find(reinterpret_cast<char*>(place));
    if (found == mapped().end()) return ::operator delete(place);
    char* const wall = reinterpret_cast<char*>(place + count);
    munmap(wall - found->second, found->second + kPage);
    mapped().erase(found);
  }

  // Size in pages, by where the memory begins.
  static std::unordered_map<char*, size_t>& mapped() {
    static std::unordered_map<char*, size_t> all;
    return all;
  }
};

// A text that ends where its memory does, without a zero behind it.
class Text {
 public:
  explicit Text(std::string_view text) : size_(text.size()), bytes_(new char[text.size()]) {
    if (size_ > 0) std::memcpy(bytes_.get(), text.data(), size_);
  }
  operator std::string_view() const { return {bytes_.get(), size_}; }

 private:
  size_t size_;
  std::unique_ptr<char[]> bytes_;
};

// What texts may be, and must not break on: nothing, a zero, characters cut short, overlong, half
// surrogate pairs, beyond Unicode, and lengths around those of vectors.
template <typename Work>
void each_hostile(const Work& work) {
  using namespace std::string_view_literals;
  for (const auto text :
       {""sv, "\0"sv, "a"sv, " "sv, "\n"sv, "\xff"sv, "\x80"sv, "\xc3"sv, "\xe2\x82"sv,
        "\xf0\x9f\x92"sv, "\xc0\xaf"sv, "\xed\xa0\x80"sv, "\xf4\x90\x80\x80"sv,
        "word \xe2"sv, "\"\\"sv, "\\u12"sv,
        "{\"text\": \"unended"sv, "{\"text\": \"\\ud800\"}"sv, "[[[[[[[["sv,
        "\xe4\xbd\xa0\xe5\xa5\xbd"sv,
        "1.2.3.4 a@b.c +49 30 1234567 -----BEGIN"sv}) {
    work(std::string_view(Text(text)));
  }
  for (const auto unit : {"a"sv, "\xff"sv, " x"sv, "\xc3\xa9"sv, "1.2"sv, "\"\n"sv}) {
    for (const int count : {7, 15, 16, 17, 31, 33, 63, 64, 65, 127, 1031}) {
      std::string text;
      while (text.size() < static_cast<size_t>(count)) text += unit;
      for (const auto size : {text.size(), text.size() - 1}) {
        const Text whole(std::string_view(text).substr(0, size));
        work(std::string_view(whole));
      }
    }
  }
}

}  // namespace exact
