// What is done to rows of a layer, in Python: norm.h, activation.h, residual.h, loss.h.
#include "cuda/activation.h"
#include "cuda/bind.h"
#include "cuda/loss.h"
#include "cuda/norm.h"
#include "cuda/residual.h"

namespace py = pybind11;
using mj::at;
using mj::check_given;

namespace {

void norm_forward(uintptr_t x, uintptr_t residual, uintptr_t weight, uintptr_t bias, uintptr_t y,
             uintptr_t sum, uintptr_t mean, uintptr_t scale, int64_t rows, int64_t columns,
             int dtype, double eps, bool offset, uintptr_t stream) {
  const int64_t size = rows * columns;
  check_given(x, size, "x");
  check_given(weight, columns, "weight");
  check_given(y, size, "y");
  check_given(scale, rows, "scale");
  check_given(sum, residual == 0 ? 0 : size, "sum");
  const py::gil_scoped_release released;
  const mj::NormRule rule{rows, columns, dtype, static_cast<float>(eps), offset, mean != 0};
  mj::norm_forward({rule, at<void>(x), at<void>(residual), at<void>(weight), at<void>(bias),
                    at<void>(y), at<void>(sum), at<float>(mean), at<float>(scale)},
                   mj::stream_of(stream));
}

void norm_backward(uintptr_t dy, uintptr_t x, uintptr_t weight, uintptr_t mean, uintptr_t scale,
              uintptr_t dsum, uintptr_t dx, uintptr_t dweight, uintptr_t dbias, uintptr_t scratch,
              int64_t rows, int64_t columns, int dtype, bool offset, uintptr_t stream) {
  const int64_t size = rows * columns;
  check_given(dy, size, "dy");
  check_given(x, size, "x");
  check_given(weight, columns, "weight");
  check_given(scale, rows, "scale");
  check_given(dx, size, "dx");
  check_given(dweight, columns, "dweight");
  check_given(dbias, mean == 0 ? 0 : columns, "dbias");
  check_given(scratch, columns, "scratch");
  const py::gil_scoped_release released;
  const mj::NormRule rule{rows, columns, dtype, 0.0f, offset, mean != 0};
  mj::norm_backward({rule, at<void>(dy), at<void>(x), at<void>(weight), at<float>(mean),
                     at<float>(scale), at<void>(dsum), at<void>(dx), at<void>(dweight),
                     at<void>(dbias), at<float>(scratch)},
                    mj::stream_of(stream));
}

void bind_norm(py::module_& m) {
  m.def("norm_forward", &norm_forward, py::arg("x"), py::arg("residual"), py::arg("weight"),
        py::arg("bias"), py::arg("y"), py::arg("sum"), py::arg("mean"), py::arg("scale"),
        py::kw_only(), py::arg("rows"), py::arg("columns"), py::arg("dtype"), py::arg("eps"),
        py::arg("offset"), py::arg("stream"),
        "Normalise rows: LayerNorm with `mean`, RMSNorm where it is 0.\n\n"
        "x, residual (or 0), y, sum (or 0): [rows, columns].  weight, bias (or 0): [columns].\n"
        "mean (or 0), scale: fp32 [rows], for norm_backward.  offset: 1 is added to the weight.");
  m.def("norm_backward", &norm_backward, py::arg("dy"), py::arg("x"), py::arg("weight"),
        py::arg("mean"), py::arg("scale"), py::arg("dsum"), py::arg("dx"), py::arg("dweight"),
        py::arg("dbias"), py::arg("scratch"), py::kw_only(), py::arg("rows"), py::arg("columns"),
        py::arg("dtype"), py::arg("offset"), py::arg("stream"),
        "Gradients of norm_forward; x is what was normalised.\n\n"
        "dsum (or 0): gradient of `sum`, added to dx.  dweight, dbias (LayerNorm alone): [columns].\n"
        "scratch: fp32 [norm_scratch(columns, centred)].");
  m.def("norm_scratch", &mj::norm_scratch, py::arg("columns"), py::arg("centred"),
        "How many numbers norm_backward needs as scratch.");
}

void activation_forward(uintptr_t x, uintptr_t bias, uintptr_t y, int64_t rows, int64_t columns, int dtype,
             int function, bool gated, uintptr_t stream) {
  const mj::ActivationRule rule{rows, columns, dtype, static_cast<mj::Activation>(function), gated};
  check_given(x, rows * columns, "x");
  check_given(y, rows * columns, "y");
  const py::gil_scoped_release released;
  mj::activation_forward({rule, at<void>(x), at<void>(bias), at<void>(y)}, mj::stream_of(stream));
}

void activation_backward(uintptr_t dy, uintptr_t x, uintptr_t bias, uintptr_t dx, uintptr_t dbias,
              uintptr_t scratch, int64_t rows, int64_t columns, int dtype, int function, bool gated,
              uintptr_t stream) {
  const mj::ActivationRule rule{rows, columns, dtype, static_cast<mj::Activation>(function), gated};
  check_given(dy, rows * columns, "dy");
  check_given(x, rows * columns, "x");
  check_given(dx, rows * columns, "dx");
  check_given(scratch, dbias == 0 ? 0 : columns, "scratch");
  const py::gil_scoped_release released;
  mj::activation_backward({rule, at<void>(dy), at<void>(x), at<void>(bias), at<void>(dx),
                           at<void>(dbias), at<float>(scratch)},
                          mj::stream_of(stream));
}

void bind_activation(py::module_& m) {
  m.def("activation_forward", &activation_forward, py::arg("x"), py::arg("bias"), py::arg("y"), py::kw_only(),
        py::arg("rows"), py::arg("columns"), py::arg("dtype"), py::arg("function"),
        py::arg("gated"), py::arg("stream"),
        "y = f(x + bias), or f(gate) * value of [gate, value] = x + bias.\n\n"
        "y: [rows, columns].  x: the same, or twice the columns where it is gated.  bias (or 0): a\n"
        "row of x.  function: 0 silu, 1 gelu, 2 gelu_tanh.");
  m.def("activation_backward", &activation_backward, py::arg("dy"), py::arg("x"), py::arg("bias"),
        py::arg("dx"), py::arg("dbias"), py::arg("scratch"), py::kw_only(), py::arg("rows"),
        py::arg("columns"), py::arg("dtype"), py::arg("function"), py::arg("gated"),
        py::arg("stream"),
        "Gradients of activation_forward.  dbias (or 0): a row of x.\n\n"
        "scratch (0 without dbias): fp32 [activation_scratch(columns, gated)].");
  m.def("activation_scratch", &mj::activation_scratch, py::arg("columns"), py::arg("gated"),
        "How many numbers activation_backward needs as scratch.");
}

mj::ResidualRule residual_rule(int64_t rows, int64_t columns, int dtype, double dropout,
                               uintptr_t seed) {
  MJ_CHECK((dropout > 0) == (seed != 0), "dropout and seed go together");
  return {rows, columns, dtype, mj::dropout_of(dropout), at<int64_t>(seed)};
}

void residual_forward(uintptr_t x, uintptr_t bias, uintptr_t residual, uintptr_t y, uintptr_t seed,
                      int64_t rows, int64_t columns, int dtype, double dropout, uintptr_t stream) {
  const auto rule = residual_rule(rows, columns, dtype, dropout, seed);
  check_given(x, rows * columns, "x");
  check_given(residual, rows * columns, "residual");
  check_given(y, rows * columns, "y");
  const py::gil_scoped_release released;
  mj::residual_forward({rule, at<void>(x), at<void>(bias), at<void>(residual), at<void>(y)},
                       mj::stream_of(stream));
}

void residual_backward(uintptr_t dy, uintptr_t dx, uintptr_t dbias, uintptr_t scratch,
                       uintptr_t seed, int64_t rows, int64_t columns, int dtype, double dropout,
                       uintptr_t stream) {
  const auto rule = residual_rule(rows, columns, dtype, dropout, seed);
  check_given(dy, rows * columns, "dy");
  check_given(dx, seed == 0 ? 0 : rows * columns, "dx");
  check_given(scratch, dbias == 0 ? 0 : columns, "scratch");
  const py::gil_scoped_release released;
  mj::residual_backward({rule, at<void>(dy), at<void>(dx), at<void>(dbias), at<float>(scratch)},
                        mj::stream_of(stream));
}

void bind_residual(py::module_& m) {
  m.def("residual_forward", &residual_forward, py::arg("x"), py::arg("bias"), py::arg("residual"),
        py::arg("y"), py::arg("seed"), py::kw_only(), py::arg("rows"), py::arg("columns"),
        py::arg("dtype"), py::arg("dropout"), py::arg("stream"),
        "y = dropout(x + bias) + residual.\n\n"
        "x, residual, y: [rows, columns].  bias (or 0): [columns].  seed: int64 [1], or 0 where\n"
        "dropout, the share that is dropped, is 0.");
  m.def("residual_backward", &residual_backward, py::arg("dy"), py::arg("dx"), py::arg("dbias"),
        py::arg("scratch"), py::arg("seed"), py::kw_only(), py::arg("rows"), py::arg("columns"),
        py::arg("dtype"), py::arg("dropout"), py::arg("stream"),
        "Gradients of residual_forward by the same seed; that of residual is dy.\n\n"
        "dx: 0 without dropout, it is dy.  scratch (0 without dbias): fp32\n"
        "[residual_scratch(columns)].");
  m.def("residual_scratch", &mj::tile_scratch, py::arg("columns"),
        "How many numbers residual_backward needs as scratch.");
}

mj::LossRule rule_of(int64_t rows, int64_t columns, int64_t first, int64_t vocab, int64_t ignored,
                     int dtype, double cap, double smoothing, double z_loss) {
  return {rows,
          columns,
          first,
          vocab,
          ignored,
          dtype,
          static_cast<float>(cap),
          static_cast<float>(smoothing),
          static_cast<float>(z_loss)};
}

void loss_parts(uintptr_t logits, uintptr_t targets, uintptr_t found, const mj::LossRule& rule, uintptr_t stream) {
  check_given(logits, rule.rows * rule.columns, "logits");
  check_given(targets, rule.rows, "targets");
  check_given(found, 4 * rule.rows, "parts");
  const py::gil_scoped_release released;
  mj::loss_parts({rule, at<void>(logits), at<int64_t>(targets), at<float>(found)},
                 mj::stream_of(stream));
}

void loss_gradient(uintptr_t x, uintptr_t targets, uintptr_t logsum, uintptr_t weights, uintptr_t to,
              const mj::LossRule& rule, uintptr_t stream) {
  check_given(x, rule.rows * rule.columns, "x");
  check_given(targets, rule.rows, "targets");
  check_given(logsum, rule.rows, "logsum");
  check_given(weights, rule.rows, "weights");
  check_given(to, rule.rows * rule.columns, "gradient");
  const py::gil_scoped_release released;
  mj::loss_gradient({rule, at<void>(x), at<int64_t>(targets), at<float>(logsum),
                     at<float>(weights), at<void>(to)},
                    mj::stream_of(stream));
}

void loss_whole(uintptr_t logits, uintptr_t targets, uintptr_t weights, uintptr_t losses,
           const mj::LossRule& rule, uintptr_t stream) {
  check_given(logits, rule.rows * rule.columns, "logits");
  check_given(targets, rule.rows, "targets");
  check_given(weights, rule.rows, "weights");
  check_given(losses, rule.rows, "losses");
  const py::gil_scoped_release released;
  mj::loss_whole({rule, at<void>(logits), at<int64_t>(targets), at<float>(weights),
                  at<float>(losses)},
                 mj::stream_of(stream));
}

void bind_loss(py::module_& m) {
  // _kernels has a type of this name too
  py::class_<mj::LossRule>(m, "LossRule", py::module_local(),
                           "How a cross-entropy is taken; see csrc/cuda/loss.h.")
      .def(py::init(&rule_of), py::kw_only(), py::arg("rows"), py::arg("columns"), py::arg("first"),
           py::arg("vocab"), py::arg("ignored"), py::arg("dtype"), py::arg("cap"),
           py::arg("smoothing"), py::arg("z_loss"));
  m.def("loss_parts", &loss_parts, py::arg("logits"), py::arg("targets"), py::arg("parts"),
        py::arg("rule"),
        py::kw_only(), py::arg("stream"),
        "What a rank's columns say of each row's cross-entropy.\n\n"
        "logits: [rows, columns], capped in place unless cap is 0.  targets: int64 [rows].\n"
        "parts: fp32 [4, rows]: largest, sum of exp(x - largest), x of the target, sum of x.");
  m.def("loss_gradient", &loss_gradient, py::arg("x"), py::arg("targets"), py::arg("logsum"),
        py::arg("weights"), py::arg("gradient"), py::arg("rule"),
        py::kw_only(), py::arg("stream"),
        "Gradients of weight x loss; x as loss_parts left it, gradient may be x.\n\n"
        "logsum, weights: fp32 [rows].");
  m.def("loss_whole", &loss_whole, py::arg("logits"), py::arg("targets"), py::arg("weights"),
        py::arg("losses"), py::arg("rule"),
        py::kw_only(), py::arg("stream"),
        "Losses fp32 [rows]; the gradient of weight x loss takes the place of the logits.");
}

const mj::Bound norm(bind_norm), activation(bind_activation), residual(bind_residual),
    loss(bind_loss);

}  // namespace
