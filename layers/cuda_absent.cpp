// Stands in for the CUDA code of the ops in a program without it. Nothing comes here: no tensor lies on such a device.
#include "layers/ops/adamw_cuda.h"
#include "layers/ops/convert_cuda.h"
#include "layers/ops/matmul_cuda.h"
#include "layers/tensor/parameter_cuda.h"

#define ABSENT(name, ...)                                                  \
  void name(__VA_ARGS__) {                                                 \
    fail(ErrorKind::Runtime, #name " has no code for CUDA in this build"); \
  }

namespace switchyard::cuda {

ABSENT(adamw, Device&, const cpu::AdamWFactors&, float, double, std::span<const AdamWPart>)
ABSENT(squares_by_block, Device&, double, std::span<const AdamWPart>, std::span<double* const>)
ABSENT(add_partial, const GradientSum&, const float*, std::int64_t)
ABSENT(convert, const Tensor&, Tensor)
ABSENT(matmul, Device&, const Matmul&)

}  // namespace switchyard::cuda
