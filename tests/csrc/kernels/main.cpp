// Every kernel for the CPU, on every machine that runs here, on odd sizes: as its formula says, as
// the plain code does, and the very same with more threads, in a forked process as well.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>

#include "cases.h"
#include "exact.h"
#include "kernels/machines.h"

namespace {

using cases::Case;
using cases::Written;
using Kernel = std::pair<std::string, std::function<Written(const Case&)>>;

const std::vector<Kernel> kKernels{
    {"RMSNorm", [](const Case& given) { return cases::norm(given, false); }},
    {"LayerNorm", [](const Case& given) { return cases::norm(given, true); }},
    {"gated activation", [](const Case& given) { return cases::activation(given, true); }},
    {"activation", [](const Case& given) { return cases::activation(given, false); }},
    {"residual", cases::residual},
    {"rope", [](const Case& given) { return cases::rope(given, false); }},
    {"interleaved rope", [](const Case& given) { return cases::rope(given, true); }},
    {"softmax", [](const Case& given) { return cases::softmax(given, false); }},
    {"causal softmax", [](const Case& given) { return cases::softmax(given, true); }},
    {"attention", cases::attention},
    {"loss", [](const Case& given) { return cases::loss(given, 0); }},
    {"capped loss", [](const Case& given) { return cases::loss(given, 5); }},
    {"loss of a part", cases::loss_of_a_part},
    {"adam", cases::adam},
    {"gradient", cases::gradient},
    {"experts", cases::experts},
};
const std::vector<std::pair<int64_t, int64_t>> kShapes{{0, 8},  {1, 1},   {3, 7},   {5, 16},
                                                       {2, 65}, {19, 131}, {67, 37}};
// by dtype, of 1 + the number: gradients of bias are sums of up to 67 rounded numbers
constexpr double kTolerance[] = {2e-4, 8e-2, 1e-2};

// The first place where the two are apart; -1 where there is none.
template <typename T>
int64_t apart(const std::vector<float>& found, const std::vector<T>& wanted, double tolerance) {
  if (found.size() < wanted.size()) return static_cast<int64_t>(found.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double other = wanted[i];
    if (found[i] == other || (std::isnan(found[i]) && std::isnan(other))) continue;
    if (!(std::fabs(found[i] - other) <= tolerance * (1 + std::fabs(other)))) {
      return static_cast<int64_t>(i);
    }
  }
  return -1;
}

void tell(const Kernel& kernel, const Case& given, const char* rule, int64_t place) {
  if (place < 0) return;
  ++exact::faults;
  std::printf("%s on %s, [%ld, %ld], dtype %d, threads %d: number %ld is not %s\n",
              kernel.first.c_str(), mj::machine_name(), static_cast<long>(given.rows),
              static_cast<long>(given.columns), given.dtype, given.threads,
              static_cast<long>(place), rule);
}

void compare(const Kernel& kernel, Case given, const std::vector<std::string>& machines) {
  mj::choose_machine("plain");
  const Written plain = kernel.second(given);
  for (const std::string& machine : machines) {
    mj::choose_machine(machine);
    given.threads = 1;
    exact::before_a_wall = true;
    const Written alone = kernel.second(given);
    tell(kernel, given, "as the formula says",
         apart(alone.found, alone.wanted, kTolerance[given.dtype]));
    tell(kernel, given, "as of plain code",
         apart(alone.found, plain.found, kTolerance[given.dtype]));
    exact::before_a_wall = false;
    given.threads = 3;
    tell(kernel, given, "as of one thread", apart(kernel.second(given).found, alone.found, 0));
  }
}

// A forked process has none of our threads: it must start its own.
void compare_forked() {
  const Case given{67, 257, mj::kFp32, 2};
  const Written here = cases::norm(given, true);
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) _exit(apart(cases::norm(given, true).found, here.found, 0) < 0 ? 0 : 1);
  int status = -1;
  waitpid(child, &status, 0);
  exact::check(status == 0, "a forked process computes something else");
}

}  // namespace

int main() {
  const std::vector<std::string> machines = mj::machines_here();
  for (const Kernel& kernel : kKernels) {
    for (const auto& [rows, columns] : kShapes) {
      for (const int dtype : {mj::kFp32, mj::kBf16, mj::kFp16}) {
        compare(kernel, {rows, columns, dtype, 1}, machines);
      }
    }
  }
  compare_forked();
  std::printf("%zu kernels on %zu machines, %d faults\n", kKernels.size(), machines.size(),
              exact::faults);
  return exact::faults == 0 ? 0 : 1;
}
