// gradients.h in Python.
#include "kernels/bind.h"
#include "kernels/gradients.h"

namespace py = pybind11;

namespace {

void bind_gradients(py::module_& m) {
  m.def(
      "add_gradient",
      [](uintptr_t gradient, uintptr_t sum, int64_t numbers, int dtype, bool first, int threads) {
        mj::check_given(gradient, numbers, "gradient");
        mj::check_given(sum, numbers, "sum");
        const py::gil_scoped_release released;
        mj::add_gradient({numbers, dtype, first, threads}, mj::at<const void>(gradient),
                         mj::at<float>(sum));
      },
      py::arg("gradient"), py::arg("sum"), py::kw_only(), py::arg("numbers"), py::arg("dtype"),
      py::arg("first"), py::arg("threads"),
      "sum += gradient, or with first sum = gradient.\n\n"
      "gradient: [numbers] of dtype.  sum: fp32 [numbers].");
}

const mj::Bound bound(bind_gradients);

}  // namespace
