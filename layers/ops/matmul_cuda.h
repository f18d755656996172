// One matrix product on a CUDA device: what all products of the layers are made of there.
#pragma once

#include "comm/base/dtype.h"
#include "comm/device/device.h"

#include <cstdint>

namespace switchyard::cuda {

// c[m, n] = a[m, k] b[k, n] (+ c), all row-major; sums in fp32, without tf32.
struct Matmul {
  std::int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  bool a_transposed = false;  // it lies as [k, m]
  const void* b = nullptr;
  bool b_transposed = false;  // it lies as [n, k]
  DType in = DType::F32;      // of a and b: F32 or BF16
  void* c = nullptr;
  DType out = DType::F32;  // of c: F32, or BF16 where `in` is
  bool accumulate = false;
};
// The same bits whenever a product of these sizes is asked for. k = 0 gives zeros.
void matmul(Device& device, const Matmul& product);

}  // namespace switchyard::cuda
