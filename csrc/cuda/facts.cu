#include "cuda/facts.h"

#include "cuda/device.h"

namespace mj {

int devices() {
#ifdef MJ_EMULATED
  return 0;
#else
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
#endif
}

}  // namespace mj
