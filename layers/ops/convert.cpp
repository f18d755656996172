#include "layers/ops/convert.h"

#include "comm/device/work.h"
#include "layers/ops/convert_cuda.h"

namespace switchyard {

namespace {
void check_alike(const char* op, const Tensor& x, const Tensor& y) {
  check_shape(op, "y", y, x.shape());
  require(&x.device() == &y.device(), "{}: x lies on {}, y on {}", op, x.device().name(), y.device().name());
}
}  // namespace

void convert(const Tensor& x, Tensor y) {
  check_alike("convert", x, y);
  if (x.dtype() == y.dtype()) {
    x.device().copy(y.raw(), x.raw(), Bytes(x.size() * size_of(x.dtype())), x.device().stream());
    return;
  }
  if (on_cpu(x)) fail_on_device("convert", x.device());
  const DeviceWork work(x.device(), "convert", {.bytes = bytes_of(x, y)});
  cuda::convert(x, y);
}

void add_converted(const Tensor& x, Tensor y) {
  const char* op = "add_converted";
  check_alike(op, x, y);
  if (on_cpu(x)) fail_on_device(op, x.device());
  const DeviceWork work(x.device(), op, {.bytes = bytes_of(x, y, y)});
  cuda::add_converted(x, y);
}

Tensor converted(const Tensor& x, DType dtype, Arena& arena) {
  if (x.dtype() == dtype) return x;
  Tensor y = allocate(arena, x.shape(), dtype);
  convert(x, y);
  return y;
}

}  // namespace switchyard
