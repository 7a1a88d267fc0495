// experts.h in Python.
#include <pybind11/stl.h>

#include <array>
#include <utility>

#include "kernels/bind.h"
#include "kernels/experts.h"

namespace py = pybind11;

namespace {

using mj::at, mj::check_given;
using Addresses = std::vector<uintptr_t>;
using Rows = std::vector<int64_t>;

mj::RouterRule router_rule(const std::array<int64_t, 3>& shape,
                           const std::array<int64_t, 3>& groups, int dtype, bool sigmoid,
                           bool normalized, double scale, int threads) {
  return {shape[0],  shape[1], shape[2], groups[0],  groups[1],
          groups[2], dtype,    sigmoid,  normalized, static_cast<float>(scale),
          threads};
}

void router_forward(uintptr_t logits, uintptr_t bias, uintptr_t weights, uintptr_t chosen,
                    const mj::RouterRule& rule) {
  check_given(logits, rule.tokens * rule.experts, "logits");
  check_given(weights, rule.tokens * rule.visits, "weights");
  check_given(chosen, rule.tokens * rule.visits, "chosen");
  const py::gil_scoped_release released;
  mj::router_forward({rule, at<void>(logits), at<float>(bias), at<float>(weights),
                      at<int64_t>(chosen)});
}

void router_backward(uintptr_t logits, uintptr_t dweights, uintptr_t chosen, uintptr_t dlogits,
                     const mj::RouterRule& rule) {
  check_given(logits, rule.tokens * rule.experts, "logits");
  check_given(dweights, rule.tokens * rule.visits, "dweights");
  check_given(chosen, rule.tokens * rule.visits, "chosen");
  check_given(dlogits, rule.tokens * rule.experts, "dlogits");
  const py::gil_scoped_release released;
  mj::router_backward({rule, at<void>(logits), at<float>(dweights), at<int64_t>(chosen),
                       at<void>(dlogits)});
}

void deal_visits(uintptr_t goes, uintptr_t source, uintptr_t places, uintptr_t chosen,
                 std::array<int64_t, 3> shape) {
  const auto [tokens, experts, visits] = shape;
  check_given(goes, tokens * experts, "goes");
  check_given(source, tokens * visits, "source");
  check_given(places, tokens * visits, "places");
  check_given(chosen, tokens * visits, "chosen");
  const py::gil_scoped_release released;
  mj::deal_visits({tokens, experts, visits, at<uint8_t>(goes), at<int64_t>(source),
                   at<int64_t>(places), at<int64_t>(chosen)});
}

mj::Chunks chunks_of(const Addresses& addresses, const Rows& rows, int64_t columns,
                     const char* name) {
  MJ_CHECK(addresses.size() == rows.size(), name, " must be ", rows.size(), " tensors, got ",
           addresses.size());
  mj::Chunks found{{}, rows};
  for (size_t n = 0; n < rows.size(); ++n) {
    check_given(addresses[n], rows[n] * columns, name);
    found.tensors.push_back(at<void>(addresses[n]));
  }
  return found;
}

void bring_rows(uintptr_t x, uintptr_t source, const Addresses& chunks, const Rows& rows,
                const mj::RowsRule& rule) {
  check_given(x, rule.tokens * rule.columns, "x");
  check_given(source, rule.tokens * rule.visits, "source");
  auto to = chunks_of(chunks, rows, rule.columns, "chunks");
  const py::gil_scoped_release released;
  mj::bring_rows({rule, at<void>(x), at<int64_t>(source), std::move(to)});
}

void collect_rows(const Addresses& chunks, uintptr_t places, uintptr_t weights, uintptr_t y,
                  const Rows& rows, const mj::RowsRule& rule) {
  check_given(places, rule.tokens * rule.visits, "places");
  check_given(y, rule.tokens * rule.columns, "y");
  auto from = chunks_of(chunks, rows, rule.columns, "chunks");
  const py::gil_scoped_release released;
  mj::collect_rows({rule, std::move(from), at<int64_t>(places), at<float>(weights), at<void>(y)});
}

void collect_rows_backward(uintptr_t dy, const Addresses& chunks, uintptr_t places,
                           uintptr_t weights, const Addresses& slopes, uintptr_t dweights,
                           const Rows& rows, const mj::RowsRule& rule) {
  check_given(dy, rule.tokens * rule.columns, "dy");
  check_given(places, rule.tokens * rule.visits, "places");
  auto from = chunks_of(chunks, rows, rule.columns, "chunks");
  auto to = chunks_of(slopes, rows, rule.columns, "slopes");
  const py::gil_scoped_release released;
  mj::collect_rows_backward({rule, at<void>(dy), std::move(from), at<int64_t>(places),
                             at<float>(weights), std::move(to), at<float>(dweights)});
}

void bind_router(py::module_& m) {
  py::class_<mj::RouterRule>(m, "RouterRule", "How experts are chosen; see csrc/kernels/experts.h.")
      .def(py::init(&router_rule), py::kw_only(), py::arg("shape"), py::arg("groups"),
           py::arg("dtype"), py::arg("sigmoid"), py::arg("normalized"), py::arg("scale"),
           py::arg("threads"));
  m.def("router_forward", &router_forward, py::arg("logits"), py::arg("bias"), py::arg("weights"),
        py::arg("chosen"), py::arg("rule"),
        "The experts of each token, the best first, and what they weigh.\n\n"
        "shape of the rule: tokens, experts, visits; groups: of all, chosen, judges of each.\n"
        "logits: [tokens, experts].  bias (or 0): fp32 [experts], for choosing alone.\n"
        "weights fp32, chosen int64: [tokens, visits].");
  m.def("router_backward", &router_backward, py::arg("logits"), py::arg("dweights"),
        py::arg("chosen"), py::arg("dlogits"), py::arg("rule"), "Gradient of router_forward.");
}

void bind_rows(py::module_& m) {
  py::class_<mj::RowsRule>(m, "RowsRule", "Sizes of rows that go to experts and come back.")
      .def(py::init([](int64_t tokens, int64_t visits, int64_t columns, int dtype, int threads) {
             return mj::RowsRule{tokens, visits, columns, dtype, threads};
           }),
           py::kw_only(), py::arg("tokens"), py::arg("visits"), py::arg("columns"),
           py::arg("dtype"), py::arg("threads"));
  m.def("deal_visits", &deal_visits, py::arg("goes"), py::arg("source"), py::arg("places"),
        py::arg("chosen"), py::kw_only(), py::arg("shape"),
        "Places of visits in the order of experts.\n\n"
        "shape: tokens, experts, visits.  goes: bool [tokens, experts].  int64: source [places],\n"
        "the token of each; places and chosen [tokens, visits], experts ascending.");
  m.def("bring_rows", &bring_rows, py::arg("x"), py::arg("source"), py::arg("chunks"),
        py::kw_only(), py::arg("rows"), py::arg("rule"),
        "Row source[p] of x [tokens, columns] to place p; places lie in chunks of `rows` rows.");
  m.def("collect_rows", &collect_rows, py::arg("chunks"), py::arg("places"), py::arg("weights"),
        py::arg("y"), py::kw_only(), py::arg("rows"), py::arg("rule"),
        "y[t] = sum over k of weights[t, k] * row places[t, k] of the chunks, in order.\n\n"
        "places int64, weights (or 0: 1) fp32: [tokens, visits].  y: [tokens, columns].");
  m.def("collect_rows_backward", &collect_rows_backward, py::arg("dy"), py::arg("chunks"),
        py::arg("places"), py::arg("weights"), py::arg("slopes"), py::arg("dweights"),
        py::kw_only(), py::arg("rows"), py::arg("rule"),
        "Gradients of collect_rows: slopes, as the chunks, and dweights (or 0) fp32.");
}

const mj::Bound router(bind_router), rows(bind_rows);

}  // namespace
