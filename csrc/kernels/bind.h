// How a file bind_*.cpp adds functions to megatron_jobs._kernels: for these files only.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "check.h"

namespace mj {

using Bind = void (*)(pybind11::module_&);

// At file scope, `const mj::Bound norm(bind_norm);`: bind_norm is called when the module is made.
struct Bound {
  explicit Bound(Bind bind);
};

// Tensors come as the address of their first number. 0 is a tensor that is not given.
template <typename T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);  // NOLINT
}

inline void check_given(uintptr_t address, int64_t size, const char* name) {
  MJ_CHECK(size >= 0, name, " has ", size, " numbers");
  MJ_CHECK(size == 0 || address != 0, name, " has no address");
}

}  // namespace mj
