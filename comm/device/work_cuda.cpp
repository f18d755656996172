#include "comm/device/work_cuda.h"

#include "comm/device/wait_cuda.h"

#include <algorithm>

namespace switchyard::cuda {

void CudaWorkRecord::begin(std::string_view name, const WorkSize& size) {
  if (used_ == spans_.size()) {
    Span& span = spans_.emplace_back();
    check(cudaEventCreate(&span.from), "cudaEventCreate");
    check(cudaEventCreate(&span.to), "cudaEventCreate");
  }
  Span& span = spans_[used_];
  span.name = name;
  span.size = size;
  check(cudaEventRecord(span.from, stream_), "cudaEventRecord");
}

// Called by a destructor: what fails here is found by the next call to CUDA.
void CudaWorkRecord::end() {
  cudaEventRecord(spans_[used_++].to, stream_);
}

std::vector<WorkTimes> CudaWorkRecord::take() {
  wait_for(stream_);
  std::vector<WorkTimes> all;
  for (std::size_t i = 0; i < used_; ++i) {
    const Span& span = spans_[i];
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, span.from, span.to), "cudaEventElapsedTime");
    auto of_name =
        std::find_if(all.begin(), all.end(), [&](const WorkTimes& times) { return times.name == span.name; });
    if (of_name == all.end()) of_name = all.insert(all.end(), WorkTimes{.name = span.name, .size = {}});
    ++of_name->calls;
    of_name->seconds += 1e-3 * static_cast<double>(milliseconds);
    of_name->size.flops += span.size.flops;
    of_name->size.bytes += span.size.bytes;
  }
  used_ = 0;
  std::sort(all.begin(), all.end(), [](const WorkTimes& a, const WorkTimes& b) { return a.seconds > b.seconds; });
  return all;
}

}  // namespace switchyard::cuda
