// The threads of the OpenMP runtime that this process has loaded: torch's.
#pragma once

#include <cstdint>

namespace mj {

// As run_pooled, on those threads; false, and nothing is done, where there is no such runtime or
// this process was forked, which they do not outlive.
//
// They wait awake for some milliseconds for the next work of torch: on other threads ours would
// have to share the cores with them.
bool run_on_team(int threads, int64_t count, void (*work)(const void* data, int64_t piece),
                 const void* data);

}  // namespace mj
