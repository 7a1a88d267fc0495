// Which code runs: the vectors that a processor has.
#pragma once

#include <initializer_list>

namespace mj {

// Each kind of machine has its own code; the results are equal, bit for bit.
enum class Machine { plain, sse41, avx2, avx512 };

inline bool runs_here(Machine machine) {
#if defined(__x86_64__)
  if (machine == Machine::avx512) return __builtin_cpu_supports("avx512f");
  if (machine == Machine::avx2) return __builtin_cpu_supports("avx2");
  if (machine == Machine::sse41) return __builtin_cpu_supports("sse4.1");
#endif
  return machine == Machine::plain;
}

inline Machine fastest_here() {
  for (const auto machine : {Machine::avx512, Machine::avx2, Machine::sse41}) {
    if (runs_here(machine)) return machine;
  }
  return Machine::plain;
}

}  // namespace mj

// Before a function, on machines that have them; elsewhere it is plain.
#if defined(__x86_64__)
#define MJ_SSE41 __attribute__((target("sse4.1")))
#define MJ_AVX2 __attribute__((target("avx2")))
#define MJ_AVX512 __attribute__((target("avx512f")))
#define MJ_VBMI __attribute__((target("avx512f,avx512bw,avx512vbmi")))
#else
#define MJ_SSE41
#define MJ_AVX2
#define MJ_AVX512
#define MJ_VBMI
#endif
