// What the processor that runs us has, beyond the one that every machine of its kind has.
#pragma once

// Before a function: compiled several times, the fastest that the processor can run is called.
// The results must be equal: integers only.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MJ_EVERY_MACHINE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MJ_EVERY_MACHINE
#endif
