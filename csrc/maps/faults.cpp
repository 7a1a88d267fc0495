#include "maps/faults.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

namespace mj {

namespace {

constexpr size_t kLine = 4096 + 128;  // PATH_MAX and what stands before a path

// All that the handler touches: it may be called within any instruction, and so takes no memory.
std::atomic<int> catching{0};
std::atomic<bool> noted{false};
std::atomic_flag working = ATOMIC_FLAG_INIT;
char noted_path[kLine];
int64_t noted_offset = 0, noted_thread = 0;
char line[kLine];
struct sigaction before;
std::mutex changes;

uintptr_t number(const char*& at, int base) {
  uintptr_t found = 0;
  for (;; ++at) {
    const char c = *at;
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : base;
    if (digit >= base) return found;
    found = found * static_cast<uintptr_t>(base) + static_cast<uintptr_t>(digit);
  }
}

// What lies at an address, by system calls alone.
std::optional<Range> range_at(uintptr_t address) {
  const int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  std::optional<Range> found;
  char block[1024];
  size_t length = 0;
  for (ssize_t count; !found && (count = read(file, block, sizeof block)) > 0;) {
    for (ssize_t at = 0; at < count && !found; ++at) {
      if (block[at] != '\n') {
        if (length + 1 < kLine) line[length++] = block[at];
        continue;
      }
      line[length] = 0;
      length = 0;
      const auto range = parse_range(line);
      if (range && range->start <= address && address < range->stop) found = range;
    }
  }
  close(file);
  return found;
}

// Puts zeros where a file was; whether reading can go on.
bool replace(uintptr_t address) {
  const auto range = range_at(address);
  if (!range) return false;
  if (*range->path != '/') return noted && !*range->path;  // another thread has just replaced it
  if (range->runs || (range->shared && range->writable)) return false;
  const auto page = address & ~(static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)) - 1);
  const int access = (range->readable ? PROT_READ : 0) | (range->writable ? PROT_WRITE : 0);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
  if (!noted) {
    strncpy(noted_path, range->path, kLine - 1);
    noted_offset = range->offset + static_cast<int64_t>(page - range->start);
    noted_thread = syscall(SYS_gettid);
  }
  // NOLINTNEXTLINE: an address is what the kernel gave
  if (mmap(reinterpret_cast<void*>(page), range->stop - page, access, flags, -1, 0) == MAP_FAILED)
    return false;
  noted = true;
  return true;
}

void handle(int, siginfo_t* facts, void*) {
  const int kept = errno;
  bool goes_on = false;
  if (catching > 0 && facts->si_code == BUS_ADRERR) {
    while (working.test_and_set(std::memory_order_acquire)) {
    }
    goes_on = replace(reinterpret_cast<uintptr_t>(facts->si_addr));
    working.clear(std::memory_order_release);
  }
  if (!goes_on) {  // as without us: the instruction is tried again, and what was sent is sent on
    sigaction(SIGBUS, &before, nullptr);
    if (facts->si_code <= 0) raise(SIGBUS);
  }
  errno = kept;
}

}  // namespace

std::optional<Range> parse_range(const char* at) {
  Range range{};
  range.start = number(at, 16);
  if (*at++ != '-') return std::nullopt;
  range.stop = number(at, 16);
  if (*at++ != ' ' || strlen(at) < 5 || at[4] != ' ') return std::nullopt;
  range.readable = at[0] == 'r';
  range.writable = at[1] == 'w';
  range.runs = at[2] == 'x';
  range.shared = at[3] == 's';
  at += 5;
  range.offset = static_cast<int64_t>(number(at, 16));
  for (int word = 0; word < 3; ++word) {  // behind the offset: device, inode, path
    while (*at == ' ') ++at;
    if (word < 2) at += strcspn(at, " ");
  }
  range.path = at;
  return range;
}

void catch_faults() {
  const std::lock_guard<std::mutex> held(changes);
  if (catching > 0) {
    ++catching;
    return;
  }
  struct sigaction ours {};
  ours.sa_sigaction = handle;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&ours.sa_mask);
  sigaction(SIGBUS, &ours, &before);
  ++catching;
}

void release_faults() {
  const std::lock_guard<std::mutex> held(changes);
  if (catching == 0 || --catching > 0) return;
  noted = false;
  struct sigaction now {};
  sigaction(SIGBUS, nullptr, &now);
  if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == handle) sigaction(SIGBUS, &before, nullptr);
}

std::optional<Fault> first_fault() {
  if (!noted) return std::nullopt;
  return Fault{noted_path, noted_offset, noted_thread};
}

}  // namespace mj
