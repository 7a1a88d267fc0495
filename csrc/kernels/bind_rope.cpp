// rope.h in Python.
#include <pybind11/stl.h>

#include <array>

#include "kernels/bind.h"
#include "kernels/rope.h"

namespace py = pybind11;

namespace {

void bind_rope(py::module_& m) {
  m.def(
      "rope",
      [](uintptr_t x, uintptr_t cos, uintptr_t sin, uintptr_t y, std::array<int64_t, 4> shape,
         std::array<int64_t, 3> strides, int64_t turned, int dtype, bool interleaved, bool inverse,
         int threads) {
        const auto [positions, sequences, heads, columns] = shape;
        const int64_t size = positions * sequences * heads * columns;
        mj::check_given(x, size, "x");
        mj::check_given(cos, positions * turned, "cos");
        mj::check_given(sin, positions * turned, "sin");
        mj::check_given(y, size, "y");
        const py::gil_scoped_release released;
        mj::rope({positions, sequences, heads, columns, turned, strides, dtype, interleaved,
                  inverse, threads, mj::at<void>(x), mj::at<void>(cos), mj::at<void>(sin),
                  mj::at<void>(y)});
      },
      py::arg("x"), py::arg("cos"), py::arg("sin"), py::arg("y"), py::kw_only(), py::arg("shape"),
      py::arg("strides"), py::arg("turned"), py::arg("dtype"), py::arg("interleaved"),
      py::arg("inverse"), py::arg("threads"),
      "Turn pairs of the first columns of each head.\n\n"
      "x: `shape` [S, B, N, D] with `strides` of all but the last.  cos, sin: [S, turned].\n"
      "y: `shape`, contiguous.  interleaved: pairs are neighbours.  inverse: turn back.");
}

const mj::Bound bound(bind_rope);

}  // namespace
