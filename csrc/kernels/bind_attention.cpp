// attention.h in Python.
#include <pybind11/stl.h>

#include <array>

#include "kernels/attention.h"
#include "kernels/bind.h"

namespace py = pybind11;

namespace {

using Strides = std::array<int64_t, 3>;

// shape: Q, K, B, N, G, D.
mj::Attention task_of(std::array<int64_t, 6> shape, Strides q_strides, Strides k_strides,
                      Strides v_strides, uintptr_t first, double scale, int dtype, int threads) {
  const auto [queries, keys, sequences, heads, groups, columns] = shape;
  return {queries,   keys,      sequences, heads,
          groups,    columns,   q_strides, k_strides,
          v_strides, mj::at<const int32_t>(first), static_cast<float>(scale), dtype,
          threads};
}

int64_t queries_of(const mj::Attention& task) {
  return task.queries * task.sequences * task.heads * task.columns;
}

int64_t keys_of(const mj::Attention& task) {
  return task.keys * task.sequences * task.groups * task.columns;
}

void forward(uintptr_t q, uintptr_t k, uintptr_t v, uintptr_t out, uintptr_t sums,
             const mj::Attention& task) {
  mj::check_given(q, queries_of(task), "q");
  mj::check_given(k, keys_of(task), "k");
  mj::check_given(v, keys_of(task), "v");
  mj::check_given(out, queries_of(task), "out");
  mj::check_given(sums, task.sequences * task.heads * task.queries, "sums");
  const py::gil_scoped_release released;
  mj::attention_forward(task, mj::at<void>(q), mj::at<void>(k), mj::at<void>(v), mj::at<void>(out),
                        mj::at<float>(sums));
}

// inputs: q, k, v, out, dout, sums. gradients: dq, dk, dv.
void backward(std::array<uintptr_t, 6> inputs, std::array<uintptr_t, 3> gradients,
              const mj::Attention& task) {
  const auto [q, k, v, out, dout, sums] = inputs;
  const auto [dq, dk, dv] = gradients;
  const int64_t queries = queries_of(task), keys = keys_of(task);
  for (const auto at : {q, out, dout, dq}) mj::check_given(at, queries, "q, out, dout or dq");
  for (const auto at : {k, v, dk, dv}) mj::check_given(at, keys, "k, v, dk or dv");
  mj::check_given(sums, task.sequences * task.heads * task.queries, "sums");
  const py::gil_scoped_release released;
  mj::attention_backward(task,
                         {mj::at<void>(q), mj::at<void>(k), mj::at<void>(v), mj::at<void>(out),
                          mj::at<void>(dout), mj::at<float>(sums)},
                         mj::at<void>(dq), mj::at<void>(dk), mj::at<void>(dv));
}

void bind_attention(py::module_& m) {
  py::class_<mj::Attention>(m, "Attention", "Sizes and kinds; see csrc/kernels/attention.h.")
      .def(py::init(&task_of), py::kw_only(), py::arg("shape"), py::arg("q_strides"),
           py::arg("k_strides"), py::arg("v_strides"), py::arg("first"), py::arg("scale"),
           py::arg("dtype"), py::arg("threads"));
  m.def("attention_forward", &forward, py::arg("q"), py::arg("k"), py::arg("v"), py::arg("out"),
        py::arg("sums"), py::arg("task"),
        "Mixed values [Q, B, N, D] and log2 sums of powers [B, N, Q].");
  m.def("attention_backward", &backward, py::arg("inputs"), py::arg("gradients"), py::arg("task"),
        "Gradients of q, k and v, contiguous.\n\n"
        "inputs: q, k, v, out, dout, sums.  gradients: dq, dk, dv.");
}

const mj::Bound bound(bind_attention);

}  // namespace
