// Argument checks that name what is wrong; Python sees them as ValueError.
#pragma once

#include <sstream>
#include <stdexcept>

namespace mj {

template <typename... Words>
[[noreturn]] void fail(const Words&... words) {
  std::ostringstream text;
  (text << ... << words);
  throw std::invalid_argument(text.str());
}

}  // namespace mj

// A macro only so that the words are not put together unless the check fails.
#define MJ_CHECK(condition, ...)                         \
  do {                                                   \
    if (!(condition)) [[unlikely]] mj::fail(__VA_ARGS__); \
  } while (false)
