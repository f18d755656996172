// The same numbers in another element type.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard {

// y = x, rounded to the nearest, ties to even. x, y: F32 or BF16, of one shape. On the CPU: F32 only.
void convert(const Tensor& x, Tensor y);
// y += x, which is rounded to y's type before, on a CUDA device: the bits of add_in_place() of what convert() gives.
void add_converted(const Tensor& x, Tensor y);
// x itself where it has that type, else a copy of it.
Tensor converted(const Tensor& x, DType dtype, Arena& arena);

}  // namespace switchyard
