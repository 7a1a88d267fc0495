// residual.h in Python.
#include "kernels/bind.h"
#include "kernels/residual.h"

namespace py = pybind11;

namespace {

void bind_residual(py::module_& m) {
  m.def(
      "add_residual",
      [](uintptr_t x, uintptr_t bias, uintptr_t residual, uintptr_t y, int64_t rows,
         int64_t columns, int dtype, int threads) {
        mj::check_given(x, rows * columns, "x");
        mj::check_given(bias, columns, "bias");
        mj::check_given(residual, rows * columns, "residual");
        mj::check_given(y, rows * columns, "y");
        const py::gil_scoped_release released;
        mj::add_residual({{rows, columns, dtype, threads}, mj::at<void>(x), mj::at<void>(bias),
                          mj::at<void>(residual), mj::at<void>(y)});
      },
      py::arg("x"), py::arg("bias"), py::arg("residual"), py::arg("y"), py::kw_only(),
      py::arg("rows"), py::arg("columns"), py::arg("dtype"), py::arg("threads"),
      "y = (x + bias) + residual.\n\nx, residual, y: [rows, columns].  bias: [columns].");
  m.def(
      "bias_gradient",
      [](uintptr_t dy, uintptr_t dbias, int64_t rows, int64_t columns, int dtype, int threads) {
        mj::check_given(dy, rows * columns, "dy");
        mj::check_given(dbias, columns, "dbias");
        const py::gil_scoped_release released;
        mj::bias_gradient({rows, columns, dtype, threads}, mj::at<void>(dy), mj::at<void>(dbias));
      },
      py::arg("dy"), py::arg("dbias"), py::kw_only(), py::arg("rows"), py::arg("columns"),
      py::arg("dtype"), py::arg("threads"), "dbias [columns]: the sum of the rows of dy.");
}

const mj::Bound bound(bind_residual);

}  // namespace
