// adam.h in Python.
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "kernels/adam.h"
#include "kernels/bind.h"

namespace py = pybind11;

namespace {

using Addresses = std::vector<uintptr_t>;
using Sizes = std::vector<int64_t>;

template <typename T>
std::vector<T*> tensors(const Addresses& addresses, const Sizes& sizes, const char* name) {
  MJ_CHECK(addresses.size() == sizes.size(), name, " must be ", sizes.size(), " tensors, got ",
           addresses.size());
  std::vector<T*> found;
  found.reserve(addresses.size());
  for (size_t n = 0; n < addresses.size(); ++n) {
    mj::check_given(addresses[n], sizes[n], name);
    found.push_back(mj::at<T>(addresses[n]));
  }
  return found;
}

void adam_step(const Addresses& parameters, const Addresses& gradients, const Addresses& first,
               const Addresses& second, const Addresses& rounded, const Sizes& sizes, int dtype,
               int rounded_dtype, const mj::AdamRule& rule, int threads) {
  const auto own = tensors<float>(parameters, sizes, "parameters");
  const auto slopes = tensors<const void>(gradients, sizes, "gradients");
  const auto means = tensors<float>(first, sizes, "first");
  const auto squares = tensors<float>(second, sizes, "second");
  const auto copies = tensors<void>(rounded, rounded.empty() ? Sizes{} : sizes, "rounded");
  const py::gil_scoped_release released;
  mj::adam_step({rule, sizes, own, means, squares, slopes, dtype, copies, rounded_dtype, threads});
}

template <typename Work>
auto with_list(const Addresses& addresses, const Sizes& sizes, int dtype, int threads,
               const Work& work) {
  const auto list = tensors<void>(addresses, sizes, "tensors");
  const py::gil_scoped_release released;
  return work(mj::TensorList{sizes, list, dtype, threads});
}

void bind_adam(py::module_& m) {
  m.def(
      "adam_step",
      [](const Addresses& parameters, const Addresses& gradients, const Addresses& first,
         const Addresses& second, const Addresses& rounded, const Sizes& sizes, int dtype,
         int rounded_dtype, double lr, double beta1, double beta2, double eps, double decay,
         double step, double factor, int threads) {
        adam_step(parameters, gradients, first, second, rounded, sizes, dtype, rounded_dtype,
                  {lr, beta1, beta2, eps, decay, step, factor}, threads);
      },
      py::arg("parameters"), py::arg("gradients"), py::arg("first"), py::arg("second"),
      py::arg("rounded"), py::kw_only(), py::arg("sizes"), py::arg("dtype"),
      py::arg("rounded_dtype"), py::arg("lr"), py::arg("beta1"), py::arg("beta2"), py::arg("eps"),
      py::arg("decay"), py::arg("step"), py::arg("factor"), py::arg("threads"),
      "One step of AdamW, the step-th: fp32 parameters and moments, gradients of dtype times\n"
      "factor.  rounded, if not empty: copies of the parameters in rounded_dtype.");
  m.def(
      "sum_of_squares",
      [](const Addresses& addresses, const Sizes& sizes, int dtype, int threads) {
        return with_list(addresses, sizes, dtype, threads, &mj::sum_of_squares);
      },
      py::arg("tensors"), py::kw_only(), py::arg("sizes"), py::arg("dtype"), py::arg("threads"),
      "The sum of squares of all numbers, the same for any number of threads.");
  m.def(
      "scale_all",
      [](const Addresses& addresses, const Sizes& sizes, int dtype, float factor, int threads) {
        return with_list(addresses, sizes, dtype, threads, [&](const mj::TensorList& list) {
          return mj::scale_all(list, factor);
        });
      },
      py::arg("tensors"), py::kw_only(), py::arg("sizes"), py::arg("dtype"), py::arg("factor"),
      py::arg("threads"), "Multiply all numbers in place; whether all that were there are finite.");
  m.def(
      "all_finite",
      [](const Addresses& addresses, const Sizes& sizes, int dtype, int threads) {
        return with_list(addresses, sizes, dtype, threads, &mj::all_finite);
      },
      py::arg("tensors"), py::kw_only(), py::arg("sizes"), py::arg("dtype"), py::arg("threads"),
      "Whether no number is infinite or NaN.");
}

const mj::Bound bound(bind_adam);

}  // namespace
