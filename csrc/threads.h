// Work cut into contiguous runs, one a thread.
#pragma once

#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

#include "check.h"

namespace mj {

// Call work(thread, first, last) so that the runs [first, last) cover [0, count) in order.
// Of the errors thrown, the one of the lowest run is passed on: always the same one.
template <typename Work>
void run_threads(int threads, int64_t count, const Work& work) {
  MJ_CHECK(threads >= 1, "threads must be at least 1, got ", threads);
  std::vector<std::exception_ptr> errors(static_cast<size_t>(threads));
  const auto run = [&](int thread) {
    try {
      work(thread, count * thread / threads, count * (thread + 1) / threads);
    } catch (...) {
      errors[static_cast<size_t>(thread)] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(threads) - 1);
  int started = 1;
  try {
    for (; started < threads; ++started) others.emplace_back(run, started);
  } catch (const std::system_error&) {
    // the machine gives no more threads: what is left is done in this one
  }
  run(0);
  for (int thread = started; thread < threads; ++thread) run(thread);
  for (auto& other : others) other.join();
  for (const auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace mj
