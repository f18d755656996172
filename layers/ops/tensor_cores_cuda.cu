#include "comm/base/log.h"
#include "comm/device/cuda.h"
#include "layers/ops/tensor_cores_cuda.h"
#include "layers/ops/wgmma_check.h"

#include <cstdlib>
#include <string_view>

namespace switchyard::cuda {
namespace {

bool chooses_wgmma(Device& device) {
  if (!has_wgmma(device)) return false;
  const std::string fault = wgmma_fault(device);
  if (fault.empty()) return true;
  log_warning("wgmma gives wrong sums on {} ({}): {}; products of bf16 matrices use mma.sync, which is slower",
              device.name(), device.model(), fault);
  return false;
}

}  // namespace

bool has_wgmma(const Device& device) {
  const char* const wanted = std::getenv("SWITCHYARD_WGMMA");
  return compute_capability(device) == 90 && (wanted == nullptr || std::string_view(wanted) != "0");
}

bool uses_wgmma(Device& device) {
  static const bool chosen = chooses_wgmma(device);  // a process works on one GPU
  return chosen;
}

}  // namespace switchyard::cuda
