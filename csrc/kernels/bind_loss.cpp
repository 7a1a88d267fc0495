// loss.h in Python.
#include "kernels/bind.h"
#include "kernels/loss.h"

namespace py = pybind11;

namespace {

mj::LossRule rule_of(int64_t rows, int64_t columns, int64_t first, int64_t vocab, int64_t ignored,
                     int dtype, double cap, double smoothing, double z_loss, int threads) {
  return {rows,
          columns,
          first,
          vocab,
          ignored,
          dtype,
          static_cast<float>(cap),
          static_cast<float>(smoothing),
          static_cast<float>(z_loss),
          threads};
}

void parts(uintptr_t logits, uintptr_t targets, uintptr_t found, const mj::LossRule& rule) {
  mj::check_given(logits, rule.rows * rule.columns, "logits");
  mj::check_given(targets, rule.rows, "targets");
  mj::check_given(found, 4 * rule.rows, "parts");
  const py::gil_scoped_release released;
  mj::loss_parts({rule, mj::at<void>(logits), mj::at<int64_t>(targets), mj::at<float>(found)});
}

void gradient(uintptr_t x, uintptr_t targets, uintptr_t logsum, uintptr_t weights, uintptr_t to,
              const mj::LossRule& rule) {
  mj::check_given(x, rule.rows * rule.columns, "x");
  mj::check_given(targets, rule.rows, "targets");
  mj::check_given(logsum, rule.rows, "logsum");
  mj::check_given(weights, rule.rows, "weights");
  mj::check_given(to, rule.rows * rule.columns, "gradient");
  const py::gil_scoped_release released;
  mj::loss_gradient({rule, mj::at<void>(x), mj::at<int64_t>(targets), mj::at<float>(logsum),
                     mj::at<float>(weights), mj::at<void>(to)});
}

void whole(uintptr_t logits, uintptr_t targets, uintptr_t weights, uintptr_t losses,
           const mj::LossRule& rule) {
  mj::check_given(logits, rule.rows * rule.columns, "logits");
  mj::check_given(targets, rule.rows, "targets");
  mj::check_given(weights, rule.rows, "weights");
  mj::check_given(losses, rule.rows, "losses");
  const py::gil_scoped_release released;
  mj::loss_whole({rule, mj::at<void>(logits), mj::at<int64_t>(targets), mj::at<float>(weights),
                  mj::at<float>(losses)});
}

void bind_loss(py::module_& m) {
  py::class_<mj::LossRule>(m, "LossRule", "How a cross-entropy is taken; see csrc/kernels/loss.h.")
      .def(py::init(&rule_of), py::kw_only(), py::arg("rows"), py::arg("columns"), py::arg("first"),
           py::arg("vocab"), py::arg("ignored"), py::arg("dtype"), py::arg("cap"),
           py::arg("smoothing"), py::arg("z_loss"), py::arg("threads"));
  m.def("loss_parts", &parts, py::arg("logits"), py::arg("targets"), py::arg("parts"),
        py::arg("rule"),
        "What a rank's columns say of each row's cross-entropy.\n\n"
        "logits: [rows, columns], capped in place unless cap is 0.  targets: int64 [rows].\n"
        "parts: fp32 [4, rows]: largest, sum of exp(x - largest), x of the target, sum of x.");
  m.def("loss_gradient", &gradient, py::arg("x"), py::arg("targets"), py::arg("logsum"),
        py::arg("weights"), py::arg("gradient"), py::arg("rule"),
        "Gradients of weight x loss; x as loss_parts left it, gradient may be x.\n\n"
        "logsum, weights: fp32 [rows].");
  m.def("loss_whole", &whole, py::arg("logits"), py::arg("targets"), py::arg("weights"),
        py::arg("losses"), py::arg("rule"),
        "Losses fp32 [rows]; the gradient of weight x loss takes the place of the logits.");
}

const mj::Bound bound(bind_loss);

}  // namespace
