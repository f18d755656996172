// Waiting for a CUDA device: whoever does, does it here, since a wait must end where what the device waits for will not
// come (wait_watch.h).
#pragma once

#include "comm/device/cuda.h"

namespace switchyard::cuda {

void wait_for(cudaStream_t stream);
void wait_for(cudaEvent_t event);

// Of cudaStreamQuery and cudaEventQuery: whether what was asked for is done. Throws as check() does.
bool is_done(cudaError_t code, const char* call);

}  // namespace switchyard::cuda
