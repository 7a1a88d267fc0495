#include "kernels/machines.h"

#include <atomic>
#include <cstdlib>

#include "check.h"

namespace mj {
namespace {

Machine fastest_here() {
  if (runs_here(Machine::avx512)) return Machine::avx512;
  return runs_here(Machine::avx2) ? Machine::avx2 : Machine::plain;
}

Machine machine_called(const std::string& name) {
  if (name.empty()) return fastest_here();
  MJ_CHECK(name == "plain" || name == "avx2" || name == "avx512",
           "machine must be plain, avx2 or avx512, got ", name);
  const auto found = name == "plain"  ? Machine::plain
                     : name == "avx2" ? Machine::avx2
                                      : Machine::avx512;
  MJ_CHECK(runs_here(found), "machine ", name, " cannot run on this processor");
  return found;
}

std::atomic<Machine>& chosen() {
  static std::atomic<Machine> now{[] {
    const char* const asked = std::getenv("MEGATRON_JOBS_MACHINE");
    return machine_called(asked == nullptr ? "" : asked);
  }()};
  return now;
}

}  // namespace

bool runs_here(Machine machine) {
  if (machine == Machine::plain) return true;
#if MJ_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (machine == Machine::avx2) return avx2;
  return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

Machine machine() { return chosen().load(std::memory_order_relaxed); }

void choose_machine(const std::string& name) { chosen() = machine_called(name); }

const char* machine_name() {
  const auto now = machine();
  return now == Machine::avx512 ? "avx512" : now == Machine::avx2 ? "avx2" : "plain";
}

}  // namespace mj
