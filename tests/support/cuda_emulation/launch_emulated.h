// What comm/device/cuda.h's launch() is in the emulation.
#pragma once

#include "tests/support/cuda_emulation/emulation.h"

#include <functional>
#include <string>

template <class... Parameters, class... Arguments>
void switchyard::cuda::launch(LaunchOn on, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                              std::size_t shared_bytes, const Arguments&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  constexpr std::size_t always_there = 40 << 10;
  if (shared_bytes > always_there) allow_shared_memory(reinterpret_cast<const void*>(kernel), shared_bytes, on.at);
  const std::string name =
      std::string("of ") + on.at.function_name() + " (" + on.at.file_name() + ":" + std::to_string(on.at.line()) + ")";
  cuda_emulation::run(on.stream, name, grid, block, shared_bytes,
                      std::bind(kernel, static_cast<Parameters>(arguments)...));
  check_launch(on.at);
}
