// What is done to heads, experts and lists of parameters, in Python: rope.h, softmax.h, experts.h,
// adam.h, gradients.h.
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <vector>

#include "cuda/adam.h"
#include "cuda/bind.h"
#include "cuda/experts.h"
#include "cuda/gradients.h"
#include "cuda/rope.h"
#include "cuda/softmax.h"

namespace py = pybind11;
using mj::at;
using mj::check_given;

namespace {

void rope(uintptr_t x, uintptr_t cos, uintptr_t sin, uintptr_t y, std::array<int64_t, 4> shape,
          std::array<int64_t, 3> strides, int64_t turned, int dtype, bool interleaved, bool inverse,
          uintptr_t stream) {
  const auto [positions, sequences, heads, columns] = shape;
  const int64_t size = positions * sequences * heads * columns;
  check_given(x, size, "x");
  check_given(cos, positions * turned, "cos");
  check_given(sin, positions * turned, "sin");
  check_given(y, size, "y");
  const py::gil_scoped_release released;
  mj::rope({positions, sequences, heads, columns, turned, {strides[0], strides[1], strides[2]},
            dtype, interleaved, inverse, at<void>(x), at<void>(cos), at<void>(sin), at<void>(y)},
           mj::stream_of(stream));
}

mj::SoftmaxRule softmax_rule(const std::array<int64_t, 4>& shape, uintptr_t allowed,
                             const std::array<int64_t, 3>& strides, bool causal, double scale,
                             double cap, int dtype) {
  return {{shape[0], shape[1], shape[2], shape[3]},
          {strides[0], strides[1], strides[2]},
          at<uint8_t>(allowed),
          causal,
          static_cast<float>(scale),
          static_cast<float>(cap),
          dtype};
}

void softmax_forward(uintptr_t x, uintptr_t w, const mj::SoftmaxRule& rule, uintptr_t stream) {
  check_given(x, rule.rows() * rule.shape[3], "scores");
  check_given(w, rule.rows() * rule.shape[3], "weights");
  const py::gil_scoped_release released;
  mj::softmax_forward({rule, at<void>(x), at<void>(w)}, mj::stream_of(stream));
}

void softmax_backward(uintptr_t dw, uintptr_t x, uintptr_t w, uintptr_t dx,
                      const mj::SoftmaxRule& rule, uintptr_t stream) {
  for (const auto& [tensor, name] :
       {std::pair{dw, "dweights"}, {x, "scores"}, {w, "weights"}, {dx, "dscores"}}) {
    check_given(tensor, rule.rows() * rule.shape[3], name);
  }
  const py::gil_scoped_release released;
  mj::softmax_backward({rule, at<void>(dw), at<void>(x), at<void>(w), at<void>(dx)},
                       mj::stream_of(stream));
}

void bind_heads(py::module_& m) {
  m.def("rope", &rope, py::arg("x"), py::arg("cos"), py::arg("sin"), py::arg("y"), py::kw_only(),
        py::arg("shape"), py::arg("strides"), py::arg("turned"), py::arg("dtype"),
        py::arg("interleaved"), py::arg("inverse"), py::arg("stream"),
        "Turn pairs of the first columns of each head.\n\n"
        "x: `shape` [S, B, N, D] with `strides` of all but the last.  cos, sin: [S, turned].\n"
        "y: `shape`, contiguous; may be x.  interleaved: pairs are neighbours.  inverse: turn back.");
  // _kernels has a type of this name too
  py::class_<mj::SoftmaxRule>(m, "SoftmaxRule", py::module_local(),
                              "How a softmax is taken; see csrc/cuda/softmax.h.")
      .def(py::init(&softmax_rule), py::kw_only(), py::arg("shape"), py::arg("allowed"),
           py::arg("strides"), py::arg("causal"), py::arg("scale"), py::arg("cap"),
           py::arg("dtype"));
  m.def("softmax_forward", &softmax_forward, py::arg("scores"), py::arg("weights"),
        py::arg("rule"), py::kw_only(), py::arg("stream"),
        "Softmax over the last axis of scores [B, N, Q, K].");
  m.def("softmax_backward", &softmax_backward, py::arg("dweights"), py::arg("scores"),
        py::arg("weights"), py::arg("dscores"), py::arg("rule"), py::kw_only(), py::arg("stream"),
        "Gradient of softmax_forward; the mask of the rule is not asked for.");
}

mj::RouterRule router_rule(const std::array<int64_t, 3>& shape, int dtype, bool sigmoid,
                           bool normalized, double scale,
                           const std::array<int64_t, 3>& groups) {
  return {shape[0], shape[1], shape[2], dtype, sigmoid, normalized, static_cast<float>(scale),
          groups[0], groups[1], groups[2]};
}

void router_forward(uintptr_t logits, uintptr_t bias, uintptr_t weights, uintptr_t chosen,
                    std::array<int64_t, 3> shape, int dtype, bool sigmoid, bool normalized,
                    double scale, std::array<int64_t, 3> groups, uintptr_t stream) {
  check_given(logits, shape[0] * shape[1], "logits");
  check_given(weights, shape[0] * shape[2], "weights");
  check_given(chosen, shape[0] * shape[2], "chosen");
  const py::gil_scoped_release released;
  mj::router_forward({router_rule(shape, dtype, sigmoid, normalized, scale, groups),
                      at<void>(logits), at<float>(bias), at<float>(weights), at<int64_t>(chosen)},
                     mj::stream_of(stream));
}

void router_backward(uintptr_t logits, uintptr_t dweights, uintptr_t chosen, uintptr_t dlogits,
                     std::array<int64_t, 3> shape, int dtype, bool sigmoid, bool normalized,
                     double scale, std::array<int64_t, 3> groups, uintptr_t stream) {
  check_given(logits, shape[0] * shape[1], "logits");
  check_given(dweights, shape[0] * shape[2], "dweights");
  check_given(chosen, shape[0] * shape[2], "chosen");
  check_given(dlogits, shape[0] * shape[1], "dlogits");
  const py::gil_scoped_release released;
  mj::router_backward({router_rule(shape, dtype, sigmoid, normalized, scale, groups),
                       at<void>(logits), at<float>(dweights), at<int64_t>(chosen),
                       at<void>(dlogits)},
                      mj::stream_of(stream));
}

void gather_rows(uintptr_t x, uintptr_t source, uintptr_t out, int64_t rows, int64_t columns,
                 int dtype, uintptr_t stream) {
  check_given(source, rows, "source");
  check_given(out, rows * columns, "out");
  const py::gil_scoped_release released;
  mj::gather_rows({rows, columns, dtype, at<void>(x), at<int64_t>(source), at<void>(out)},
                  mj::stream_of(stream));
}

void combine_forward(uintptr_t x, uintptr_t places, uintptr_t weights, uintptr_t y, int64_t tokens,
                     int64_t visits, int64_t columns, int dtype, uintptr_t stream) {
  check_given(places, tokens * visits, "places");
  check_given(y, tokens * columns, "y");
  const py::gil_scoped_release released;
  mj::combine_forward({{tokens, visits, columns, dtype}, at<void>(x), at<int64_t>(places),
                       at<float>(weights), at<void>(y)},
                      mj::stream_of(stream));
}

void combine_backward(uintptr_t dy, uintptr_t x, uintptr_t places, uintptr_t weights, uintptr_t dx,
                      uintptr_t dweights, int64_t tokens, int64_t visits, int64_t columns,
                      int dtype, uintptr_t stream) {
  check_given(dy, tokens * columns, "dy");
  check_given(places, tokens * visits, "places");
  check_given(x, dweights == 0 ? 0 : tokens * visits * columns, "x");
  const py::gil_scoped_release released;
  mj::combine_backward({{tokens, visits, columns, dtype}, at<void>(dy), at<void>(x),
                        at<int64_t>(places), at<float>(weights), at<void>(dx), at<float>(dweights)},
                       mj::stream_of(stream));
}

void bind_experts(py::module_& m) {
  m.def("router_forward", &router_forward, py::arg("logits"), py::arg("bias"), py::arg("weights"),
        py::arg("chosen"), py::kw_only(), py::arg("shape"), py::arg("dtype"), py::arg("sigmoid"),
        py::arg("normalized"), py::arg("scale"), py::arg("groups"), py::arg("stream"),
        "The experts of each token, the best first, and what they weigh.\n\n"
        "shape: tokens, experts (512 at most), visits.  logits: [tokens, experts].  bias (or 0):\n"
        "fp32 [experts], for choosing alone.  weights fp32, chosen int64: [tokens, visits].\n"
        "groups: how many there are of experts, how many of them a token may visit, and how many\n"
        "of its experts, 1 or 2, say how good a group is.");
  m.def("router_backward", &router_backward, py::arg("logits"), py::arg("dweights"),
        py::arg("chosen"), py::arg("dlogits"), py::kw_only(), py::arg("shape"), py::arg("dtype"),
        py::arg("sigmoid"), py::arg("normalized"), py::arg("scale"), py::arg("groups"),
        py::arg("stream"), "Gradient of router_forward.");
  m.def("gather_rows", &gather_rows, py::arg("x"), py::arg("source"), py::arg("out"), py::kw_only(),
        py::arg("rows"), py::arg("columns"), py::arg("dtype"), py::arg("stream"),
        "out[p] = x[source[p]]; zeros where source is -1.  source: int64 [rows].");
  m.def("combine_forward", &combine_forward, py::arg("x"), py::arg("places"), py::arg("weights"),
        py::arg("y"), py::kw_only(), py::arg("tokens"), py::arg("visits"), py::arg("columns"),
        py::arg("dtype"), py::arg("stream"),
        "y[t] = sum over k of weights[t, k] * x[places[t, k]], in order; -1 counts nothing.\n\n"
        "places int64, weights (or 0: 1) fp32: [tokens, visits].  y: [tokens, columns].");
  m.def("combine_backward", &combine_backward, py::arg("dy"), py::arg("x"), py::arg("places"),
        py::arg("weights"), py::arg("dx"), py::arg("dweights"), py::kw_only(), py::arg("tokens"),
        py::arg("visits"), py::arg("columns"), py::arg("dtype"), py::arg("stream"),
        "Gradients of combine_forward; rows of dx that no token has are not written.");
}

using Tensors = std::vector<uintptr_t>;
using Sizes = std::vector<int64_t>;

std::vector<void*> tensors_of(const Tensors& addresses, const Sizes& sizes, const char* name) {
  MJ_CHECK(addresses.size() == sizes.size(), name, " must be ", sizes.size(), " tensors, got ",
           addresses.size());
  std::vector<void*> found;
  found.reserve(addresses.size());
  for (size_t n = 0; n < addresses.size(); ++n) {
    MJ_CHECK(sizes[n] >= 0, "sizes must not be negative, got ", sizes[n]);
    check_given(addresses[n], sizes[n], name);
    found.push_back(at<void>(addresses[n]));
  }
  return found;
}

void adam_step(const Tensors& parameters, const Tensors& gradients, const Tensors& first,
               const Tensors& second, const Tensors& rounded, const Sizes& sizes, int dtype,
               int rounded_dtype, double lr, double beta1, double beta2, double eps, double decay,
               double step, double factor, uintptr_t factor_at, uintptr_t stop, uintptr_t stream) {
  const auto own = tensors_of(parameters, sizes, "parameters");
  const auto slopes = tensors_of(gradients, sizes, "gradients");
  const auto means = tensors_of(first, sizes, "first");
  const auto squares = tensors_of(second, sizes, "second");
  const auto copies = tensors_of(rounded, rounded.empty() ? Sizes{} : sizes, "rounded");
  const mj::AdamRule rule{lr, beta1, beta2, eps, decay, step, factor};
  const py::gil_scoped_release released;
  mj::adam_step({rule, sizes, own, slopes, means, squares, copies, dtype, rounded_dtype,
                 at<float>(factor_at), at<float>(stop)},
                mj::stream_of(stream));
}

void sum_of_squares(const Tensors& tensors, uintptr_t scratch, uintptr_t sum, const Sizes& sizes,
                    int dtype, uintptr_t stream) {
  const auto list = tensors_of(tensors, sizes, "tensors");
  check_given(scratch, mj::squares_scratch(sizes), "scratch");
  check_given(sum, 1, "sum");
  const py::gil_scoped_release released;
  mj::sum_of_squares({sizes, list, dtype}, at<float>(scratch), at<double>(sum),
                     mj::stream_of(stream));
}

void scale_all(const Tensors& tensors, uintptr_t factor_at, uintptr_t bad, const Sizes& sizes,
               int dtype, float factor, uintptr_t stream) {
  const auto list = tensors_of(tensors, sizes, "tensors");
  const py::gil_scoped_release released;
  mj::scale_all({sizes, list, dtype}, factor, at<float>(factor_at), at<float>(bad),
                mj::stream_of(stream));
}

void find_bad(const Tensors& tensors, uintptr_t bad, const Sizes& sizes, int dtype,
              uintptr_t stream) {
  const auto list = tensors_of(tensors, sizes, "tensors");
  check_given(bad, 1, "bad");
  const py::gil_scoped_release released;
  mj::find_bad({sizes, list, dtype}, at<float>(bad), mj::stream_of(stream));
}

void add_product(uintptr_t dy, uintptr_t x, uintptr_t sum, int64_t rows, int64_t outputs,
                 int64_t inputs, int dtype, int sum_dtype, bool first, uintptr_t stream) {
  check_given(dy, rows * outputs, "dy");
  check_given(x, rows * inputs, "x");
  check_given(sum, outputs * inputs, "sum");
  const py::gil_scoped_release released;
  mj::add_product({rows, outputs, inputs, dtype, sum_dtype, at<void>(dy), at<void>(x),
                   at<void>(sum), first},
                  mj::stream_of(stream));
}

void bind_lists(py::module_& m) {
  m.def("adam_step", &adam_step, py::arg("parameters"), py::arg("gradients"), py::arg("first"),
        py::arg("second"), py::arg("rounded"), py::kw_only(), py::arg("sizes"), py::arg("dtype"),
        py::arg("rounded_dtype"), py::arg("lr"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"),
        py::arg("decay"), py::arg("step"), py::arg("factor"), py::arg("factor_at"),
        py::arg("stop"), py::arg("stream"),
        "One step of AdamW, the step-th: fp32 parameters and moments, gradients of dtype times\n"
        "factor and factor_at (fp32 [1], or 0).  rounded, if not empty: copies of the parameters\n"
        "in rounded_dtype.  stop (fp32 [1], or 0): nothing is done unless it is 0.");
  m.def("sum_of_squares", &sum_of_squares, py::arg("tensors"), py::arg("scratch"), py::arg("sum"),
        py::kw_only(), py::arg("sizes"), py::arg("dtype"), py::arg("stream"),
        "sum, fp64 [1]: of the squares of all numbers.  scratch: fp32 [squares_scratch(sizes)].");
  m.def("squares_scratch", [](const Sizes& sizes) { return mj::squares_scratch(sizes); },
        py::arg("sizes"), "How many numbers sum_of_squares needs as scratch.");
  m.def("scale_all", &scale_all, py::arg("tensors"), py::arg("factor_at"), py::arg("bad"),
        py::kw_only(), py::arg("sizes"), py::arg("dtype"), py::arg("factor"), py::arg("stream"),
        "Multiply in place by factor and factor_at (fp32 [1], or 0).\n\n"
        "bad (fp32 [1], or 0) becomes 1 if any number was infinite or NaN before.");
  m.def("find_bad", &find_bad, py::arg("tensors"), py::arg("bad"), py::kw_only(), py::arg("sizes"),
        py::arg("dtype"), py::arg("stream"),
        "bad, fp32 [1], becomes 1 if any number is infinite or NaN.");
  m.def("use_cublas", &mj::use_cublas, py::arg("path"), "Take cuBLAS from a shared library.");
  m.def("add_product", &add_product, py::arg("dy"), py::arg("x"), py::arg("sum"), py::kw_only(),
        py::arg("rows"), py::arg("outputs"), py::arg("inputs"), py::arg("dtype"),
        py::arg("sum_dtype"), py::arg("first"), py::arg("stream"),
        "sum [outputs, inputs] += dy' x, of dy [rows, outputs] and x [rows, inputs].\n\n"
        "first: sum = dy' x, whatever it was.");
}

const mj::Bound heads(bind_heads), experts(bind_experts), lists(bind_lists);

}  // namespace
