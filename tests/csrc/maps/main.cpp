// Files that are cut short while they are mapped: zeros, once, and the place by name.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "exact.h"
#include "maps/faults.h"

#define CHECK(condition) exact::check(static_cast<bool>(condition), #condition)

namespace {

const size_t kPage = static_cast<size_t>(sysconf(_SC_PAGESIZE));

struct Mapped {
  std::string name = std::filesystem::temp_directory_path() / "mj-maps-XXXXXX";
  int file;
  size_t size;
  volatile unsigned char* data;

  explicit Mapped(size_t pages) : file(mkstemp(name.data())), size(pages * kPage) {
    const std::vector<unsigned char> ones(size, 1);
    CHECK(write(file, ones.data(), size) == static_cast<ssize_t>(size));
    data = static_cast<unsigned char*>(mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0));
  }
  ~Mapped() {
    munmap(const_cast<unsigned char*>(data), size);
    close(file);
    unlink(name.c_str());
  }
  size_t sum() const {
    size_t found = 0;
    for (size_t at = 0; at < size; ++at) found += data[at];
    return found;
  }
};

// How a child ends that does it.
template <typename Work>
int status_of(const Work& work) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGBUS, SIG_DFL);
    work();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

void check_lines() {
  const auto range = mj::parse_range("7f00-8f00 r-xs 0000a000 fd:01 4711      /a b/c");
  CHECK(range && range->start == 0x7f00 && range->stop == 0x8f00 && range->offset == 0xa000);
  CHECK(range->readable && !range->writable && range->runs && range->shared);
  CHECK(std::string(range->path) == "/a b/c");
  const auto nameless = mj::parse_range("1000-2000 rw-p 00000000 00:00 0 ");
  CHECK(nameless && !*nameless->path && nameless->writable && !nameless->shared);
  for (const char* odd : {"", "12", "12-", "12-34", "12-34 r-", "x", "-"})
    CHECK(!mj::parse_range(odd));
}

}  // namespace

int main() {
  check_lines();
  {
    Mapped file(8);
    mj::catch_faults();
    mj::catch_faults();
    CHECK(!mj::first_fault());
    CHECK(file.sum() == 8 * kPage);
    CHECK(ftruncate(file.file, static_cast<off_t>(3 * kPage + 5)) == 0);
    size_t sums[3];
    std::vector<std::thread> threads;
    for (auto& sum : sums) threads.emplace_back([&] { sum = file.sum(); });
    for (auto& thread : threads) thread.join();
    for (const auto sum : sums) CHECK(sum == 3 * kPage + 5);
    const auto fault = mj::first_fault();
    CHECK(fault && fault->path == file.name && fault->offset == static_cast<int64_t>(4 * kPage));
    mj::release_faults();
    CHECK(mj::first_fault());
    mj::release_faults();
    CHECK(!mj::first_fault());
    mj::release_faults();  // once too often: nothing
  }
  {
    mj::catch_faults();
    CHECK(!mj::first_fault());
    mj::release_faults();
    Mapped file(2);
    CHECK(ftruncate(file.file, 0) == 0);
    CHECK(WTERMSIG(status_of([&] { file.sum(); })) == SIGBUS);  // released: as ever
    const int sent = status_of([] {
      mj::catch_faults();
      raise(SIGBUS);
    });
    CHECK(WIFSIGNALED(sent) && WTERMSIG(sent) == SIGBUS);  // sent by somebody: not ours
    CHECK(status_of([&] {
            mj::catch_faults();
            if (file.sum() != 0 || mj::first_fault()->offset != 0) _exit(1);
          }) == 0);
  }
  return exact::faults == 0 ? 0 : 1;
}
