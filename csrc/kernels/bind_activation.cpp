// activation.h in Python.
#include "kernels/activation.h"
#include "kernels/bind.h"

namespace py = pybind11;

namespace {

mj::ActivationRule rule_of(int64_t rows, int64_t columns, int dtype, int function, bool gated,
                           int threads) {
  return {rows, columns, dtype, static_cast<mj::Activation>(function), gated, threads};
}

void bind_activation(py::module_& m) {
  m.def(
      "activation_forward",
      [](uintptr_t x, uintptr_t bias, uintptr_t y, int64_t rows, int64_t columns, int dtype,
         int function, bool gated, int threads) {
        const auto rule = rule_of(rows, columns, dtype, function, gated, threads);
        mj::check_given(x, rows * columns, "x");
        mj::check_given(y, rows * columns, "y");
        const py::gil_scoped_release released;
        mj::activation_forward({rule, mj::at<void>(x), mj::at<void>(bias), mj::at<void>(y)});
      },
      py::arg("x"), py::arg("bias"), py::arg("y"), py::kw_only(), py::arg("rows"),
      py::arg("columns"), py::arg("dtype"), py::arg("function"), py::arg("gated"),
      py::arg("threads"),
      "y = f(x + bias), or f(gate) * value of [gate, value] = x + bias.\n\n"
      "y: [rows, columns].  x: the same, or twice the columns where it is gated.  bias (or 0): a\n"
      "row of x.  function: 0 silu, 1 gelu, 2 gelu_tanh.");
  m.def(
      "activation_backward",
      [](uintptr_t dy, uintptr_t x, uintptr_t bias, uintptr_t dx, uintptr_t dbias, int64_t rows,
         int64_t columns, int dtype, int function, bool gated, int threads) {
        const auto rule = rule_of(rows, columns, dtype, function, gated, threads);
        mj::check_given(dy, rows * columns, "dy");
        mj::check_given(x, rows * columns, "x");
        mj::check_given(dx, rows * columns, "dx");
        const py::gil_scoped_release released;
        mj::activation_backward({rule, mj::at<void>(dy), mj::at<void>(x), mj::at<void>(bias),
                                 mj::at<void>(dx), mj::at<void>(dbias)});
      },
      py::arg("dy"), py::arg("x"), py::arg("bias"), py::arg("dx"), py::arg("dbias"), py::kw_only(),
      py::arg("rows"), py::arg("columns"), py::arg("dtype"), py::arg("function"), py::arg("gated"),
      py::arg("threads"), "Gradients of activation_forward.  dbias (or 0): a row of x.");
}

const mj::Bound bound(bind_activation);

}  // namespace
