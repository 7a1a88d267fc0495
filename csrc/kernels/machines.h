// Which code runs: chosen once, for the vectors that the processor has.
#pragma once

#include <string>
#include <vector>

// GCC alone compiles one file for several machines; elsewhere there is plain code only.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MJ_X86 1
#else
#define MJ_X86 0
#endif

namespace mj {

// avx2: with FMA and F16C; avx512: F, BW, DQ and VL; avx512_bf16: products of bf16 as well, which
// attention alone has code for. Each runs what those before it run.
enum class Machine { plain, avx2, avx512, avx512_bf16 };

bool runs_here(Machine machine);

// The fastest that runs here, or the one that MEGATRON_JOBS_MACHINE names.
Machine machine();

// By its name, or "" for the fastest; invalid_argument where it cannot run. For tests.
void choose_machine(const std::string& name);
const char* machine_name();
std::vector<std::string> machines_here();  // the fastest last

}  // namespace mj

// MJ_CHOSEN(f)(...) calls f of the namespace of the chosen machine: see every_machine.h.
#if MJ_X86
#define MJ_CHOSEN(function)                                         \
  (mj::machine() >= mj::Machine::avx512 ? &mj::avx512::function      \
   : mj::machine() == mj::Machine::avx2 ? &mj::avx2::function        \
                                        : &mj::plain::function)
#else
#define MJ_CHOSEN(function) (&mj::plain::function)
#endif
