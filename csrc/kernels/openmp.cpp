#include "kernels/openmp.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

#include <atomic>
#include <string>
#include <vector>

namespace mj {
namespace {

// What GCC makes of `#pragma omp parallel`; the runtimes of Clang and Intel know it as well.
using StartTeam = void (*)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

std::vector<std::string> loaded_libraries() {
  std::vector<std::string> names;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* into) {
        static_cast<std::vector<std::string>*>(into)->emplace_back(info->dlpi_name);
        return 0;
      },
      &names);
  return names;
}

bool is_runtime(const std::string& library) {
  const std::string name = library.substr(library.rfind('/') + 1);
  return name.starts_with("libgomp") || name.starts_with("libomp") || name.starts_with("libiomp");
}

StartTeam start_of_team() {
  for (const std::string& library : loaded_libraries()) {
    if (!is_runtime(library)) continue;
    void* const handle = dlopen(library.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    void* const found = handle == nullptr ? nullptr : dlsym(handle, "GOMP_parallel");
    if (found != nullptr) return reinterpret_cast<StartTeam>(found);  // NOLINT
  }
  return nullptr;
}

std::atomic<bool> forked{false};

// What the threads of a team share. Each does pieces until none is left.
struct Pile {
  void (*work)(const void* data, int64_t piece);
  const void* data;
  int64_t count;
  std::atomic<int64_t> next{0};

  static void take(void* pile) {
    auto& from = *static_cast<Pile*>(pile);
    for (int64_t piece = from.next++; piece < from.count; piece = from.next++) {
      from.work(from.data, piece);
    }
  }
};

}  // namespace

bool run_on_team(int threads, int64_t count, void (*work)(const void* data, int64_t piece),
                 const void* data) {
  static const int told = pthread_atfork(nullptr, nullptr, [] { forked = true; });
  static const StartTeam start = start_of_team();
  if (told != 0 || start == nullptr || forked) return false;
  Pile pile{work, data, count};
  // as many as torch has, were there less to do: a team that changes its size starts threads anew
  start(&Pile::take, &pile, static_cast<unsigned>(threads), 0);
  return true;
}

}  // namespace mj
