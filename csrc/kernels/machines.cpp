#include "kernels/machines.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>

#include "check.h"

namespace mj {
namespace {

constexpr std::array<const char*, 4> kNames{"plain", "avx2", "avx512", "avx512_bf16"};

Machine machine_called(const std::string& name) {
  if (name.empty()) {
    int fastest = kNames.size() - 1;
    while (!runs_here(static_cast<Machine>(fastest))) --fastest;
    return static_cast<Machine>(fastest);
  }
  const auto at = std::find(kNames.begin(), kNames.end(), name);
  MJ_CHECK(at != kNames.end(), "machine must be plain, avx2, avx512 or avx512_bf16, got ", name);
  const auto found = static_cast<Machine>(at - kNames.begin());
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
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  return avx512 && (machine == Machine::avx512 || __builtin_cpu_supports("avx512bf16"));
#else
  return false;
#endif
}

Machine machine() { return chosen().load(std::memory_order_relaxed); }

void choose_machine(const std::string& name) { chosen() = machine_called(name); }

const char* machine_name() { return kNames[static_cast<size_t>(machine())]; }

std::vector<std::string> machines_here() {
  std::vector<std::string> found;
  for (size_t n = 0; n < kNames.size(); ++n) {
    if (runs_here(static_cast<Machine>(n))) found.emplace_back(kNames[n]);
  }
  return found;
}

}  // namespace mj
