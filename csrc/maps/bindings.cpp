// The only file that sees pybind11: names faults.
#include <pybind11/pybind11.h>

#include "maps/faults.h"

namespace py = pybind11;

namespace {

py::object first_fault() {
  const auto found = mj::first_fault();
  if (!found) return py::none();
  return py::make_tuple(py::bytes(found->path), found->offset, found->thread);
}

}  // namespace

PYBIND11_MODULE(_maps, m) {
  m.doc() = "Mapped files that no longer hold what is read of them, in C++.";

  m.def("catch_faults", &mj::catch_faults,
        "From now on what a mapped file no longer holds reads as zeros, where SIGBUS would end the\n"
        "process.  Calls are counted.");

  m.def("release_faults", &mj::release_faults, "Undo one call of catch_faults; the last forgets what was noted.");

  m.def("first_fault", &first_fault,
        "(path, offset, thread) of the first such reading since faults are caught: bytes as the\n"
        "kernel names the file, the page's place in it in bytes, the thread's native id; or None.");
}
