// What the files bind_*.cpp share: for these files only.
#pragma once

#include "cuda/device.h"
#include "kernels/bind.h"

namespace mj {

// What Python calls torch.cuda.current_stream().cuda_stream.
inline Stream stream_of(uintptr_t stream) { return at<void>(stream); }

}  // namespace mj
