// Mapped files that were cut short, or that a disk refuses to give, while they are read.
//
// The kernel ends a process by SIGBUS that reads what a mapped file no longer holds. While faults
// are caught, zeros take the place of the rest of that file, and which file it was is noted: the
// reader asks when it is convenient, and must not believe what it has read since.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace mj {

struct Fault {
  std::string path;  // as the kernel names it: `(deleted)` behind what was replaced
  int64_t offset;    // of the page in the file, bytes
  int64_t thread;    // that read it: gettid(2)
};

// Catches until as many times released; the last forgets what was noted.
void catch_faults();
void release_faults();

// The first since faults are caught; none while they are not.
std::optional<Fault> first_fault();

// The line of /proc/PID/maps, its newline left out, that holds an address.
struct Range {
  uintptr_t start, stop;
  bool readable, writable, runs, shared;
  int64_t offset;
  const char* path;  // within the line; empty for memory without a file
};
std::optional<Range> parse_range(const char* line);

}  // namespace mj
