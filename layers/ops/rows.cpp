#include "layers/ops/rows.h"

#include "comm/device/work.h"
#include "layers/ops/float_type.h"
#include "layers/ops/rows_cpu.h"
#include "layers/ops/rows_cuda.h"

namespace switchyard {
namespace {

void check_matrix(const char* op, const char* name, const Tensor& tensor) {
  require(tensor.defined() && tensor.shape().rank() == 2, "{}: {} is {}, wanted a matrix", op, name,
          tensor.shape().to_string());
}

// `many` has a row for each index, `few` the rows that the indices name.
void check_move(const char* op, const Tensor& many, const char* many_name, const Tensor& few, const char* few_name,
                const Tensor& index, const Tensor* scale) {
  check_matrix(op, many_name, many);
  check_matrix(op, few_name, few);
  const Device& device = many.device();
  const std::int64_t slots = many.dim(0);
  const DType type = float_type(op, many_name, many);
  check_tensor(op, few_name, few, {few.dim(0), many.dim(1)}, device, type);
  check_tensor(op, "index", index, {slots}, device, DType::I32);
  if (scale != nullptr) check_tensor(op, "scale", *scale, {slots}, device);
}

void gather(const char* op, const Tensor& x, const Tensor& index, const Tensor* scale, Tensor y) {
  check_move(op, y, "y", x, "x", index, scale);
  if (on_cpu(y)) return cpu::gather_rows(op, x, index, scale == nullptr ? Tensor() : *scale, y);
  const DeviceWork work(y.device(), op, {.bytes = bytes_of(y, index, y)});
  cuda::gather_rows(x, index, scale == nullptr ? Tensor() : *scale, y);
}

void scatter(const char* op, const Tensor& x, const Tensor& index, const Tensor* scale, Tensor y) {
  check_move(op, x, "x", y, "y", index, scale);
  if (on_cpu(y)) return cpu::scatter_rows(op, x, index, scale == nullptr ? Tensor() : *scale, y);
  const DeviceWork work(x.device(), op, {.bytes = bytes_of(x, index, x)});
  cuda::scatter_rows(x, index, scale == nullptr ? Tensor() : *scale, y);
}

}  // namespace

void gather_rows(const Tensor& x, const Tensor& index, Tensor y) {
  gather("gather_rows", x, index, nullptr, y);
}

void gather_rows_scaled(const Tensor& x, const Tensor& index, const Tensor& scale, Tensor y) {
  gather("gather_rows_scaled", x, index, &scale, y);
}

void scatter_rows(const Tensor& x, const Tensor& index, Tensor y) {
  scatter("scatter_rows", x, index, nullptr, y);
}

void scatter_rows_scaled(const Tensor& x, const Tensor& index, const Tensor& scale, Tensor y) {
  scatter("scatter_rows_scaled", x, index, &scale, y);
}

void sum_rows(const Tensor& x, const Tensor& order, const Tensor& begin, Tensor y) {
  const char* op = "sum_rows";
  check_matrix(op, "x", x);
  check_matrix(op, "y", y);
  const Device& device = y.device();
  check_tensor(op, "x", x, {x.dim(0), y.dim(1)}, device, float_type(op, "y", y));
  check_tensor(op, "order", order, {x.dim(0)}, device, DType::I32);
  check_tensor(op, "begin", begin, {y.dim(0) + 1}, device, DType::I32);
  if (on_cpu(y)) return cpu::sum_rows(x, order, begin, y);
  const DeviceWork work(y.device(), op, {.bytes = bytes_of(x, order, begin, y)});
  cuda::sum_rows(x, order, begin, y);
}

void dot_rows(const Tensor& a, const Tensor& row, const Tensor& b, Tensor out) {
  const char* op = "dot_rows";
  check_matrix(op, "a", a);
  check_matrix(op, "b", b);
  const Device& device = b.device();
  check_tensor(op, "a", a, {a.dim(0), b.dim(1)}, device, float_type(op, "b", b));
  check_tensor(op, "row", row, {b.dim(0)}, device, DType::I32);
  check_tensor(op, "out", out, {b.dim(0)}, device);
  if (on_cpu(b)) return cpu::dot_rows(a, row, b, out);
  const DeviceWork work(b.device(), op, {.bytes = bytes_of(b, row, b, out)});
  cuda::dot_rows(a, row, b, out);
}

}  // namespace switchyard
