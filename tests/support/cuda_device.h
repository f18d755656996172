// The CUDA device of a test: an emulated one, or a GPU where the test was linked with CUDA. Without a GPU the test ends
// here and counts as left out.
#pragma once

#include "comm/base/error.h"
#include "comm/device/device.h"

#include <cstdio>
#include <cstdlib>

namespace switchyard::test {

inline Device& cuda_device() {
  try {
    return open_device("cuda");
  } catch (const Error& error) {
    std::printf("SKIPPED: %s\n", error.what());
    std::fflush(stdout);
    std::_Exit(77);
  }
}

}  // namespace switchyard::test
