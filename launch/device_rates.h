// What a device can do, measured now: that which kernels are compared with.
#pragma once

#include "comm/base/dtype.h"
#include "comm/device/device.h"

#include <cstdint>

namespace switchyard {

struct ProductRate {
  double tflops = 0;
  std::int64_t size = 0;  // of the square matrices that it was measured with
};
// Of one large product of matrices of this type (F32, BF16). The device keeps a record.
ProductRate measure_product_rate(Device& device, DType dtype);
// Of a large copy within the device's memory, bytes read and written, GB/s. The device keeps a record.
double measure_copy_rate(Device& device);

}  // namespace switchyard
