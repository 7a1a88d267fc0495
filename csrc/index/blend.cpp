#include "index/blend.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "check.h"
#include "index/blend_lanes.h"
#include "index/blend_stretches.h"
#include "index/blend_walk.h"

namespace mj {
namespace {

AdvanceLanes advance_on(Machine machine) {
  MJ_CHECK(runs_here(machine), "machine: this one cannot run the code that was asked for");
  if (machine == Machine::avx512) return advance_avx512;
  return machine == Machine::avx2 ? advance_avx2 : advance_plain;
}

void check_rule(const BlendRule& rule) {
  const size_t sources = rule.weights.size();
  MJ_CHECK(sources >= 1 && sources < 32767, "weights must have from 1 to 32766 sources, got ",
           sources);
  for (size_t i = 0; i < sources; ++i) {
    const double weight = rule.weights[i];
    MJ_CHECK(weight > 0 && std::isfinite(weight), "weights[", i, "] must be positive, got ",
             weight);
  }
  const double sum = std::accumulate(rule.weights.begin(), rule.weights.end(), 0.0);
  MJ_CHECK(std::abs(sum - 1) < 1e-6, "weights must add up to 1, got ", sum);
  if (rule.limits.empty()) return;
  MJ_CHECK(rule.limits.size() == sources, "limits must have ", sources, " sources, got ",
           rule.limits.size());
  for (size_t i = 0; i < sources; ++i) {
    // they are compared as doubles, which hold all integers so far
    MJ_CHECK(rule.limits[i] > 0 && rule.limits[i] < (1ll << 53), "limits[", i,
             "] must be from 1 to 2^53 - 1, got ", rule.limits[i]);
  }
}

void check_end(const BlendRule& rule, int64_t end) {
  if (rule.limits.empty()) return;
  const double held = std::accumulate(rule.limits.begin(), rule.limits.end(), 0.0);
  MJ_CHECK(static_cast<double>(end) <= held, "size: ", end, " samples end beyond the ", held,
           " of limits");
}

}  // namespace

bool runs_here(Machine machine) {
#ifdef __x86_64__
  if (machine == Machine::avx512) return __builtin_cpu_supports("avx512f");
  if (machine == Machine::avx2) return __builtin_cpu_supports("avx2");
#endif
  return machine == Machine::plain;
}

Machine fastest_here() {
  if (runs_here(Machine::avx512)) return Machine::avx512;
  return runs_here(Machine::avx2) ? Machine::avx2 : Machine::plain;
}

void blend(const BlendRule& rule, int64_t size, int threads, Machine machine, BlendOutput output) {
  check_rule(rule);
  check_end(rule, size);
  MJ_CHECK(threads >= 1, "threads must be at least 1, got ", threads);
  const AdvanceLanes advance = advance_on(machine);
  if (size == 0) {
    std::ranges::fill(output.counts, 0);
    return;
  }
  Stretches stretches(rule, size, threads, output);
  stretches.run(threads, advance);
  stretches.join();
}

void blend_part(const BlendRule& rule, Counts taken, int64_t first, std::span<int16_t> source,
                std::span<int64_t> number) {
  check_rule(rule);
  const auto last = first + static_cast<int64_t>(source.size());
  check_end(rule, last);
  MJ_CHECK(first >= 0, "first must not be negative, got ", first);
  MJ_CHECK(taken.size() == rule.weights.size(), "taken must have ", rule.weights.size(),
           " sources, got ", taken.size());
  const int64_t sum = std::accumulate(taken.begin(), taken.end(), int64_t{0});
  MJ_CHECK(sum == first, "taken must add up to first, ", first, ", got ", sum);
  walk(rule, taken, first, last, source.data(), number.data());
}

}  // namespace mj
