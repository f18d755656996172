// The record of a CUDA device's main stream, by pairs of events.
#pragma once

#include "comm/device/work.h"

#include <cstddef>
#include <vector>

#include <cuda_runtime.h>

namespace switchyard::cuda {

class CudaWorkRecord final : public WorkRecord {
 public:
  explicit CudaWorkRecord(cudaStream_t stream) : stream_(stream) {}

  void begin(std::string_view name, const WorkSize& size) override;
  void end() override;
  std::vector<WorkTimes> take() override;

 private:
  struct Span {
    std::string_view name;
    WorkSize size;
    cudaEvent_t from = nullptr, to = nullptr;  // for ever: see open_cuda()
  };
  cudaStream_t stream_;
  std::vector<Span> spans_;  // the first used_ are of this time; the others' events wait to be used again
  std::size_t used_ = 0;
};

}  // namespace switchyard::cuda
