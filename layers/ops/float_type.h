// The element type of activations: fp32 everywhere, bfloat16 on CUDA devices as well.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard {

// The type that all activations of an op have where its input `tensor` has it; throws where it is none.
inline DType float_type(const char* op, const char* name, const Tensor& tensor) {
  const bool known = tensor.dtype() == DType::F32 || (tensor.dtype() == DType::BF16 && !on_cpu(tensor));
  require(known, "{}: {} is {}, wanted {}", op, name, name_of(tensor.dtype()), name_of(DType::F32));
  return tensor.dtype();
}

}  // namespace switchyard
