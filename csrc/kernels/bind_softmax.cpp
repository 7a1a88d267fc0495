// softmax.h in Python.
#include <pybind11/stl.h>

#include <array>

#include "kernels/bind.h"
#include "kernels/softmax.h"

namespace py = pybind11;

namespace {

mj::SoftmaxRule rule_of(uintptr_t allowed, std::array<int64_t, 4> shape,
                        std::array<int64_t, 3> strides, bool causal, double scale, double cap,
                        int dtype, int threads) {
  return {shape,
          strides,
          mj::at<const uint8_t>(allowed),
          causal,
          static_cast<float>(scale),
          static_cast<float>(cap),
          dtype,
          threads};
}

int64_t size_of(const mj::SoftmaxRule& rule) {
  const auto [sequences, heads, queries, keys] = rule.shape;
  return sequences * heads * queries * keys;
}

void forward(uintptr_t x, uintptr_t w, const mj::SoftmaxRule& rule) {
  mj::check_given(x, size_of(rule), "scores");
  mj::check_given(w, size_of(rule), "weights");
  const py::gil_scoped_release released;
  mj::softmax_forward(rule, mj::at<void>(x), mj::at<void>(w));
}

void backward(uintptr_t dw, uintptr_t x, uintptr_t w, uintptr_t dx, const mj::SoftmaxRule& rule) {
  mj::check_given(dw, size_of(rule), "dweights");
  mj::check_given(x, size_of(rule), "scores");
  mj::check_given(w, size_of(rule), "weights");
  mj::check_given(dx, size_of(rule), "dscores");
  const py::gil_scoped_release released;
  mj::softmax_backward(rule, mj::at<void>(dw), mj::at<void>(x), mj::at<void>(w), mj::at<void>(dx));
}

void bind_softmax(py::module_& m) {
  py::class_<mj::SoftmaxRule>(m, "SoftmaxRule", "What is taken; see csrc/kernels/softmax.h.")
      .def(py::init(&rule_of), py::kw_only(), py::arg("allowed"), py::arg("shape"),
           py::arg("strides"), py::arg("causal"), py::arg("scale"), py::arg("cap"),
           py::arg("dtype"), py::arg("threads"));
  m.def("softmax_forward", &forward, py::arg("scores"), py::arg("weights"), py::arg("rule"),
        "Weights [B, N, Q, K] of scores, over the keys that a query may see.");
  m.def("softmax_backward", &backward, py::arg("dweights"), py::arg("scores"), py::arg("weights"),
        py::arg("dscores"), py::arg("rule"), "The gradient of the scores.  All [B, N, Q, K].");
}

const mj::Bound bound(bind_softmax);

}  // namespace
