#include "cuda/gradients.h"

#include <dlfcn.h>

#include <atomic>
#include <limits>
#include <map>
#include <stdexcept>
#include <vector>

#include "kernels/dtype.h"

// Linked in, cuBLAS would make 500 MB of a module; linked against, one that fits torch's alone. Its C
// interface has been the same since CUDA 11: so its four functions are looked up by name.
namespace mj {

namespace {

using Handle = void*;
constexpr int kKeep = 0, kTurn = 1;        // CUBLAS_OP_N, CUBLAS_OP_T
constexpr int kTypes[] = {0, 14, 2};       // CUDA_R_32F, CUDA_R_16BF, CUDA_R_16F, by our codes
constexpr int kComputeFp32 = 68;           // CUBLAS_COMPUTE_32F
constexpr int kAnyAlgorithm = -1;          // CUBLAS_GEMM_DEFAULT

struct Cublas {
  int (*create)(Handle*);
  int (*set_stream)(Handle, void*);
  int (*product)(Handle, int, int, int, int, int, const void*, const void*, int, int, const void*,
                 int, int, const void*, void*, int, int, int, int);
};

std::atomic<const Cublas*> loaded{nullptr};

template <typename F>
void find(void* library, const char* name, F& function) {
  void* found = dlsym(library, name);
  if (found == nullptr) throw std::runtime_error(std::string("cuBLAS has no ") + name);
  function = reinterpret_cast<F>(found);
}

void check_status(const char* what, int status) {
  if (status != 0) {
    throw std::runtime_error(std::string(what) + ": cuBLAS says " + std::to_string(status));
  }
}

int current_device() {
  int device = 0;
#ifndef MJ_EMULATED
  if (cudaGetDevice(&device) != cudaSuccess) throw std::runtime_error("no CUDA device");
#endif
  return device;
}

// A handle belongs to a device, and to a thread at a time. They are never given back: at the end of
// a process cuBLAS may be gone before its threads are.
Handle handle_of(const Cublas& cublas) {
  thread_local std::map<int, Handle> handles;
  Handle& own = handles[current_device()];
  if (own == nullptr) check_status("cublasCreate", cublas.create(&own));
  return own;
}

int as_int(const char* name, int64_t value) {
  MJ_CHECK(value >= 0 && value <= std::numeric_limits<int>::max(), name, " must be below 2^31, got ",
           value);
  return static_cast<int>(value);
}

}  // namespace

void use_cublas(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(std::string("cuBLAS: ") + dlerror());
  static Cublas found;
  find(library, "cublasCreate_v2", found.create);
  find(library, "cublasSetStream_v2", found.set_stream);
  find(library, "cublasGemmEx", found.product);
  loaded = &found;
}

void add_product(const AddProduct& task, Stream stream) {
  const Cublas* cublas = loaded;
  if (cublas == nullptr) throw std::runtime_error("add_product: use_cublas was not called");
  with_dtype(task.dtype, [](auto*) {});
  MJ_CHECK(task.sum_dtype == kFp32 || task.sum_dtype == task.dtype,
           "sum must be fp32 or of the dtype of dy, got ", task.sum_dtype);
  if (task.outputs == 0 || task.inputs == 0 || (task.rows == 0 && !task.first)) return;
  const int rows = as_int("rows", task.rows), outputs = as_int("outputs", task.outputs);
  const int inputs = as_int("inputs", task.inputs), type = kTypes[task.dtype];
  const float one = 1.0f, kept = task.first ? 0.0f : 1.0f;
  const Handle handle = handle_of(*cublas);
  check_status("cublasSetStream", cublas->set_stream(handle, stream));
  // to cuBLAS, whose columns lie together, x is [I, T], dy [O, T], and sum [I, O] = x dy'
  check_status("cublasGemmEx",
               cublas->product(handle, kKeep, kTurn, inputs, outputs, rows, &one, task.x, type,
                               inputs, task.dy, type, outputs, &kept, task.sum,
                               kTypes[task.sum_dtype], inputs, kComputeFp32, kAnyAlgorithm));
}

}  // namespace mj
