// Compiles the file that MJ_CODE names once a machine, each time in a namespace of its own.
//
//   #define MJ_CODE "kernels/norm_lanes.h"   // functions in terms of lanes.h, without #pragma once
//   #include "kernels/every_machine.h"
//   ... MJ_CHOSEN(norm_rows)(arguments) ...
//
// MJ_CODE includes nothing: what it needs is included before. Its functions are inline or static.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/dtype.h"
#include "kernels/machines.h"

#if MJ_X86
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 of its own _mm512_undefined
#include <immintrin.h>
#pragma GCC diagnostic pop

#define MJ_LANES 16
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
namespace mj::avx512 {
namespace {
#include "kernels/lanes.h"
#include MJ_CODE
}  // namespace
}  // namespace mj::avx512
#pragma GCC pop_options
#undef MJ_LANES

#define MJ_LANES 8
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace mj::avx2 {
namespace {
#include "kernels/lanes.h"
#include MJ_CODE
}  // namespace
}  // namespace mj::avx2
#pragma GCC pop_options
#undef MJ_LANES
#endif

#define MJ_LANES 4
namespace mj::plain {
namespace {
#include "kernels/lanes.h"
#include MJ_CODE
}  // namespace
}  // namespace mj::plain
#undef MJ_LANES
