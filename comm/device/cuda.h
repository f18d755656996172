// CUDA for the code that runs on it: checked calls, a device's stream, kernel launches. For comm/device, comm/transport
// and the *_cuda.cu files: nobody else sees a CUDA header.
#pragma once

#include "comm/base/error.h"
#include "comm/device/device.h"

#include <cstddef>
#include <cstdint>
#include <source_location>

#include <cuda_runtime.h>

namespace switchyard::cuda {

// Throws Error(Runtime) with CUDA's own words where a call did not succeed.
void check(cudaError_t code, const char* call);

cudaStream_t stream_of(const Device& device);  // see Device::stream()
cudaStream_t stream_of(const Device& device, Stream& stream);  // one of the device's
int multiprocessors(const Device& device);
int compute_capability(const Device& device);  // 90 for 9.0

// A stream, and who launches on it: what an error names.
struct LaunchOn {
  LaunchOn(cudaStream_t on, std::source_location here = std::source_location::current()) : stream(on), at(here) {}
  cudaStream_t stream;
  std::source_location at;
};

void check_launch(const std::source_location& at);
void allow_shared_memory(const void* kernel, std::size_t bytes, const std::source_location& at);

// kernel<<<grid, block, shared, stream>>>(arguments...), checked. An empty grid launches nothing.
template <class... Parameters, class... Arguments>
void launch(LaunchOn on, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            const Arguments&... arguments);

// How many blocks of `each` elements there are, and at most `most`: for kernels that step over the whole by the grid.
inline unsigned blocks_for(std::int64_t elements, std::int64_t each, std::int64_t most = 0x7fffffff) {
  const std::int64_t blocks = (elements + each - 1) / each;
  return static_cast<unsigned>(blocks < most ? blocks : most);
}

}  // namespace switchyard::cuda

#ifdef __CUDACC__
template <class... Parameters, class... Arguments>
void switchyard::cuda::launch(LaunchOn on, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                              std::size_t shared_bytes, const Arguments&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  constexpr std::size_t always_there = 40 << 10;  // beside what kernels have of a fixed size: 48 KiB in all
  if (shared_bytes > always_there) allow_shared_memory(reinterpret_cast<const void*>(kernel), shared_bytes, on.at);
  kernel<<<grid, block, shared_bytes, on.stream>>>(static_cast<Parameters>(arguments)...);
  check_launch(on.at);
}
#elif defined(SWITCHYARD_CUDA_EMULATION)
#include <launch_emulated.h>
#endif
