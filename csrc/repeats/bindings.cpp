// megatron_jobs._repeats: stretches of text that stand more than once.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string_view>

#include "check.h"
#include "repeats/repeats.h"
#include "repeats/suffixes.h"

namespace py = pybind11;

namespace {

using Ends = py::array_t<std::int64_t, py::array::c_style>;

std::span<const std::uint8_t> bytes_of(const py::bytes& text) {
  const std::string_view view = text;
  return {reinterpret_cast<const std::uint8_t*>(view.data()), view.size()};
}

py::array_t<std::int32_t> suffix_array(const py::bytes& text) {
  std::vector<std::int32_t> found;
  {
    const auto bytes = bytes_of(text);
    const py::gil_scoped_release unlocked;
    found = mj::suffix_array(bytes);
  }
  return py::array_t<std::int32_t>(static_cast<py::ssize_t>(found.size()), found.data());
}

py::array_t<std::int64_t> repeated_stretches(const py::bytes& text, const Ends& ends,
                                             std::int64_t length, int threads) {
  MJ_CHECK(ends.ndim() == 1, "ends must have 1 dimension, got ", ends.ndim());
  std::vector<mj::Stretch> found;
  {
    const auto bytes = bytes_of(text);
    const std::span<const std::int64_t> cuts{ends.data(), static_cast<std::size_t>(ends.size())};
    const py::gil_scoped_release unlocked;
    found = mj::repeated_stretches(bytes, cuts, length, threads);
  }
  py::array_t<std::int64_t> result({static_cast<py::ssize_t>(found.size()), py::ssize_t{2}});
  auto rows = result.mutable_unchecked<2>();
  for (std::size_t i = 0; i < found.size(); ++i) {
    rows(static_cast<py::ssize_t>(i), 0) = found[i].start;
    rows(static_cast<py::ssize_t>(i), 1) = found[i].end;
  }
  return result;
}

}  // namespace

PYBIND11_MODULE(_repeats, module) {
  module.def("suffix_array", &suffix_array, py::arg("text"));
  module.def("repeated_stretches", &repeated_stretches, py::arg("text"), py::arg("ends").noconvert(),
             py::kw_only(), py::arg("length"), py::arg("threads"));
}
