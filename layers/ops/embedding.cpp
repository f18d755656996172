#include "layers/ops/embedding.h"

#include "layers/ops/embedding_cpu.h"

namespace switchyard {
void embedding(const Tensor& tokens, const Tensor& table, Tensor y) {
  const char* op = "embedding";
  require(table.defined() && table.shape().rank() == 2, "{}: table is {}, wanted a matrix", op,
          table.shape().to_string());
  const Device& device = table.device();
  check_tensor(op, "table", table, table.shape(), device);
  check_tensor(op, "tokens", tokens, {tokens.size()}, device, DType::I32);
  check_tensor(op, "y", y, {tokens.size(), table.dim(1)}, device);
  if (on_cpu(y)) return cpu::embedding(tokens, table, y);
  fail_on_device(op, device);
}

void embedding_backward(const Tensor& dy, const Tensor& tokens, const GradientSum& dtable) {
  const char* op = "embedding_backward";
  require(dy.defined() && dy.shape().rank() == 2, "{}: dy is {}, wanted a matrix", op, dy.shape().to_string());
  const Device& device = dy.device();
  check_tensor(op, "dy", dy, dy.shape(), device);
  check_tensor(op, "tokens", tokens, {dy.dim(0)}, device, DType::I32);
  require(dy.dim(1) > 0 && dtable.size % dy.dim(1) == 0, "{}: a gradient of {} elements is not a table of width {}", op,
          dtable.size, dy.dim(1));
  if (on_cpu(dy)) return cpu::embedding_backward(dy, tokens, dtable);
  fail_on_device(op, device);
}

}  // namespace switchyard
