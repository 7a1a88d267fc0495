// What the programs of this folder share: memory of exactly the right size, for sanitizers to see
// the first byte beyond it, and a count of what is not as it must be.
#pragma once

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

namespace exact {

inline int faults = 0;

// Tells where something is wrong; the program goes on.
inline void check(bool right, const char* what, std::string_view of = "") {
  if (right) return;
  ++faults;
  std::printf("%s: \"%.*s\"\n", what, static_cast<int>(of.size()), of.data());
}

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
