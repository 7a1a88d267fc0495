// megatron_jobs._cuda: what the files bind_*.cpp add.
#include <pybind11/pybind11.h>

#include <vector>

#include "cuda/bind.h"
#include "cuda/facts.h"

namespace py = pybind11;

namespace {

std::vector<mj::Bind>& bound() {
  static std::vector<mj::Bind> all;
  return all;
}

}  // namespace

mj::Bound::Bound(Bind bind) { bound().push_back(bind); }

PYBIND11_MODULE(_cuda, m) {
  m.doc() =
      "Fused kernels for CUDA.  Tensors are addresses of contiguous numbers, whose dtype is a\n"
      "code: 0 fp32, 1 bf16, 2 fp16; 0 is a tensor that is not given.  Work is put on `stream`,\n"
      "torch.cuda.current_stream().cuda_stream, and not waited for.";
  m.attr("KERNELS") =
      py::make_tuple("norm", "activation", "rope", "loss", "softmax", "adam", "residual",
                     "experts", "gradients");
  m.attr("EMULATED") = mj::kEmulated;
  m.def("devices", &mj::devices, "How many CUDA devices are here: 0 without a driver.");
  for (const auto bind : bound()) bind(m);
}
