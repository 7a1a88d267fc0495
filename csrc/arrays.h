// numpy arrays as spans, for bindings.cpp files only: no other sees pybind11.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "check.h"

namespace mj {

// Borrow a 1-D contiguous array of exactly T.  Never casts or copies: a wrong dtype is an error.
template <typename T>
std::span<const T> view(const pybind11::array& array, const char* name) {
  namespace py = pybind11;
  const auto want = py::str(py::dtype::of<T>()).template cast<std::string>();
  const auto got = py::str(array.dtype()).template cast<std::string>();
  MJ_CHECK(py::isinstance<py::array_t<T>>(array), name, " must be ", want, ", got ", got);
  MJ_CHECK(array.ndim() == 1, name, " must be 1-D, got ", array.ndim(), "-D");
  MJ_CHECK(array.flags() & py::array::c_style, name, " must be contiguous");
  MJ_CHECK(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_, name, " must be aligned");
  return {static_cast<const T*>(array.data()), static_cast<size_t>(array.size())};
}

// The same to write to.
template <typename T>
std::span<T> writable_view(pybind11::array& array, const char* name) {
  const auto values = view<T>(array, name);
  MJ_CHECK(array.writeable(), name, " must be writable");
  return {static_cast<T*>(array.mutable_data()), values.size()};
}

// Hand a vector over to numpy, without a copy.
template <typename T>
pybind11::array_t<T> hand_over(std::vector<T>&& values) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  auto* held = owned.get();
  const pybind11::capsule owner(owned.release(),
                                [](void* p) { delete static_cast<std::vector<T>*>(p); });
  return pybind11::array_t<T>(static_cast<pybind11::ssize_t>(held->size()), held->data(), owner);
}

}  // namespace mj
