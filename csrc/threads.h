// Work cut into contiguous runs, one a thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>
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

// Call work(piece) for the pieces [0, count), each by the next thread that is free: where the machine
// is shared, one thread may be much slower than another.
// Of the errors thrown, the one of the lowest piece is passed on: always the same one.
template <typename Work>
void run_pieces(int threads, int64_t count, const Work& work) {
  std::atomic<int64_t> next{0};
  std::vector<std::pair<int64_t, std::exception_ptr>> errors(
      static_cast<size_t>(std::max(threads, 0)), {count, nullptr});
  run_threads(threads, threads, [&](int thread, int64_t, int64_t) {
    // pieces are given out in order: those below a wrong one are all done, or being done
    for (int64_t piece = next++; piece < count; piece = next++) {
      try {
        work(piece);
      } catch (...) {
        errors[static_cast<size_t>(thread)] = {piece, std::current_exception()};
        next = count;
      }
    }
  });
  const auto by_piece = [](const auto& a, const auto& b) { return a.first < b.first; };
  const auto first = std::min_element(errors.begin(), errors.end(), by_piece);
  if (first != errors.end() && first->second) std::rethrow_exception(first->second);
}

}  // namespace mj
