// What is known of this build and this machine.
#pragma once

namespace mj {

#ifdef MJ_EMULATED
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

// CUDA devices; 0 where there is no driver.
int devices();

}  // namespace mj
