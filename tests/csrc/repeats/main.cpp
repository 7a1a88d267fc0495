// Suffix arrays and repeated stretches, beside slow ones.
#include <algorithm>
#include <numeric>

#include "exact.h"
#include "repeats/repeats.h"
#include "repeats/suffixes.h"

namespace {

using Bytes = std::span<const std::uint8_t>;

Bytes bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::vector<std::int32_t> sorted_slowly(std::string_view text) {
  std::vector<std::int32_t> starts(text.size());
  std::iota(starts.begin(), starts.end(), 0);
  const auto suffix = [&](std::int32_t start) { return text.substr(static_cast<size_t>(start)); };
  // a suffix comes after those that it begins with
  std::sort(starts.begin(), starts.end(), [&](auto a, auto b) { return suffix(a) < suffix(b); });
  return starts;
}

// Which bytes lie in a window that stands before.
std::vector<bool> repeated_slowly(std::string_view text, size_t length) {
  std::vector<bool> found(text.size());
  for (size_t at = 0; at + length <= text.size(); ++at) {
    if (text.find(text.substr(at, length)) == at) continue;
    std::fill_n(found.begin() + static_cast<std::ptrdiff_t>(at), length, true);
  }
  return found;
}

void compare(std::string_view text) {
  exact::check(mj::suffix_array(bytes_of(text)) == sorted_slowly(text), "suffixes differ", text);
  const std::vector<std::int64_t> ends{static_cast<std::int64_t>(text.size())};
  for (const int threads : {1, 3}) {
    std::vector<bool> found(text.size());
    for (const auto& [start, end] : mj::repeated_stretches(bytes_of(text), ends, 5, threads)) {
      std::fill(found.begin() + start, found.begin() + end, true);
    }
    exact::check(found == repeated_slowly(text, 5), "stretches differ", text);
  }
}

}  // namespace

int main() {
  exact::each_hostile([](std::string_view text) {
    if (!text.empty()) compare(text);
  });
  compare(std::string_view(exact::Text("to be or not to be, that is what is to be")));
  return exact::faults == 0 ? 0 : 1;
}
