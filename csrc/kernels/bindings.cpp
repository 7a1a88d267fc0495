// megatron_jobs._kernels: what the files bind_*.cpp add, and the choice of machine.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "kernels/bind.h"
#include "kernels/machines.h"

namespace py = pybind11;

namespace {

std::vector<mj::Bind>& bound() {
  static std::vector<mj::Bind> all;
  return all;
}

}  // namespace

mj::Bound::Bound(Bind bind) { bound().push_back(bind); }

PYBIND11_MODULE(_kernels, m) {
  m.doc() =
      "Fused kernels for the CPU.  Tensors are addresses of contiguous numbers, whose dtype is a\n"
      "code: 0 fp32, 1 bf16, 2 fp16.  The GIL is released; results do not depend on `threads`.";
  m.def("machine", &mj::machine_name, "For which machine the code is that runs.");
  m.def("machines", &mj::machines_here, "The machines whose code runs here, the fastest last.");
  m.def("choose_machine", &mj::choose_machine, py::arg("name"),
        "One of machines(), or '' for the fastest; for tests.");
  for (const auto bind : bound()) bind(m);
}
