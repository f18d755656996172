// What the runtime's calls and the kernels' launches share.
#pragma once

#include <functional>

#include <cuda_runtime.h>

namespace cuda_emulation {

void set_last_error(cudaError_t error);  // what cudaGetLastError() tells next
// Does work now, or when something synchronises with the stream.
void on_stream(cudaStream_t stream, std::function<void()> work);

}  // namespace cuda_emulation
