#include "layers/ops/convert.h"

#include "comm/device/work.h"
#include "layers/ops/convert_cuda.h"

namespace switchyard {

void convert(const Tensor& x, Tensor y) {
  check_shape("convert", "y", y, x.shape());
  require(&x.device() == &y.device(), "convert: x lies on {}, y on {}", x.device().name(), y.device().name());
  if (x.dtype() == y.dtype()) {
    x.device().copy(y.raw(), x.raw(), Bytes(x.size() * size_of(x.dtype())), x.device().stream());
    return;
  }
  if (on_cpu(x)) fail_on_device("convert", x.device());
  const DeviceWork work(x.device(), "convert", {.bytes = bytes_of(x, y)});
  cuda::convert(x, y);
}

Tensor converted(const Tensor& x, DType dtype, Arena& arena) {
  if (x.dtype() == dtype) return x;
  Tensor y = allocate(arena, x.shape(), dtype);
  convert(x, y);
  return y;
}

}  // namespace switchyard
