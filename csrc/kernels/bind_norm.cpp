// norm.h in Python.
#include "kernels/bind.h"
#include "kernels/norm.h"

namespace py = pybind11;

namespace {

mj::NormRule rule_of(int64_t rows, int64_t columns, int dtype, double eps, bool offset,
                     bool centred, int threads) {
  return {rows, columns, dtype, static_cast<float>(eps), offset, centred, threads};
}

void bind_norm(py::module_& m) {
  m.def(
      "norm_forward",
      [](uintptr_t x, uintptr_t residual, uintptr_t weight, uintptr_t bias, uintptr_t y,
         uintptr_t sum, uintptr_t mean, uintptr_t scale, int64_t rows, int64_t columns, int dtype,
         double eps, bool offset, int threads) {
        const auto rule = rule_of(rows, columns, dtype, eps, offset, mean != 0, threads);
        const int64_t size = rows * columns;
        mj::check_given(x, size, "x");
        mj::check_given(weight, columns, "weight");
        mj::check_given(y, size, "y");
        mj::check_given(scale, rows, "scale");
        mj::check_given(sum, residual == 0 ? 0 : size, "sum");
        const py::gil_scoped_release released;
        mj::norm_forward({rule, mj::at<void>(x), mj::at<void>(residual), mj::at<void>(weight),
                          mj::at<void>(bias), mj::at<void>(y), mj::at<void>(sum),
                          mj::at<float>(mean), mj::at<float>(scale)});
      },
      py::arg("x"), py::arg("residual"), py::arg("weight"), py::arg("bias"), py::arg("y"),
      py::arg("sum"), py::arg("mean"), py::arg("scale"), py::kw_only(), py::arg("rows"),
      py::arg("columns"), py::arg("dtype"), py::arg("eps"), py::arg("offset"), py::arg("threads"),
      "Normalise rows: LayerNorm with `mean`, RMSNorm where it is 0.\n\n"
      "x, residual (or 0), y, sum (or 0): [rows, columns].  weight, bias (or 0): [columns].\n"
      "mean (or 0), scale: fp32 [rows], for norm_backward.  offset: 1 is added to the weight.");
  m.def(
      "norm_backward",
      [](uintptr_t dy, uintptr_t x, uintptr_t weight, uintptr_t mean, uintptr_t scale,
         uintptr_t dsum, uintptr_t dx, uintptr_t dweight, uintptr_t dbias, int64_t rows,
         int64_t columns, int dtype, bool offset, int threads) {
        const auto rule = rule_of(rows, columns, dtype, 0, offset, mean != 0, threads);
        const int64_t size = rows * columns;
        mj::check_given(dy, size, "dy");
        mj::check_given(x, size, "x");
        mj::check_given(weight, columns, "weight");
        mj::check_given(scale, rows, "scale");
        mj::check_given(dx, size, "dx");
        mj::check_given(dweight, columns, "dweight");
        const py::gil_scoped_release released;
        mj::norm_backward({rule, mj::at<void>(dy), mj::at<void>(x), mj::at<void>(weight),
                           mj::at<float>(mean), mj::at<float>(scale), mj::at<void>(dsum),
                           mj::at<void>(dx), mj::at<void>(dweight), mj::at<void>(dbias)});
      },
      py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("mean"), py::arg("scale"),
      py::arg("dsum"), py::arg("dx"), py::arg("dweight"), py::arg("dbias"), py::kw_only(),
      py::arg("rows"), py::arg("columns"), py::arg("dtype"), py::arg("offset"), py::arg("threads"),
      "Gradients of norm_forward; x is what was normalised.\n\n"
      "dsum (or 0): gradient of `sum`, added to dx.  dweight, dbias (or 0): [columns].");
}

const mj::Bound bound(bind_norm);

}  // namespace
