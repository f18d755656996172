#include "comm/device/wait_cuda.h"

#include "comm/device/wait_watch.h"

namespace switchyard::cuda {

bool is_done(cudaError_t code, const char* call) {
  if (code == cudaErrorNotReady) {
    cudaGetLastError();  // an answer, no fault: the next launch must not find it
    return false;
  }
  check(code, call);
  return true;
}

void wait_for(cudaStream_t stream) {
  if (!waits_are_watched()) return check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  watched_wait([&] { return is_done(cudaStreamQuery(stream), "cudaStreamQuery"); });
}
void wait_for(cudaEvent_t event) {
  if (!waits_are_watched()) return check(cudaEventSynchronize(event), "cudaEventSynchronize");
  watched_wait([&] { return is_done(cudaEventQuery(event), "cudaEventQuery"); });
}

}  // namespace switchyard::cuda
