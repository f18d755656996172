#include "layers/ops/embedding.h"

#include "comm/device/work.h"
#include "layers/ops/embedding_cpu.h"
#include "layers/ops/embedding_cuda.h"
#include "layers/ops/float_type.h"

namespace switchyard {

void check_tokens(std::span<const std::int32_t> tokens, std::int64_t vocabulary) {
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    if (tokens[t] < 0 || tokens[t] >= vocabulary) [[unlikely]] {
      fail(ErrorKind::Data, "token {} at position {} is beyond the vocabulary of {}", tokens[t], t, vocabulary);
    }
  }
}

void embedding(const Tensor& tokens, const Tensor& table, Tensor y) {
  const char* op = "embedding";
  require(table.defined() && table.shape().rank() == 2, "{}: table is {}, wanted a matrix", op,
          table.shape().to_string());
  const Device& device = table.device();
  check_tensor(op, "table", table, table.shape(), device);
  check_tensor(op, "tokens", tokens, {tokens.size()}, device, DType::I32);
  check_tensor(op, "y", y, {tokens.size(), table.dim(1)}, device, float_type(op, "y", y));
  if (on_cpu(y)) return cpu::embedding(tokens, table, y);
  const DeviceWork work(y.device(), op, {.bytes = bytes_of(tokens, y, y)});
  cuda::embedding(tokens, table, y);
}

void embedding_backward(const Tensor& dy, const Tensor& tokens, const GradientSum& dtable) {
  const char* op = "embedding_backward";
  require(dy.defined() && dy.shape().rank() == 2, "{}: dy is {}, wanted a matrix", op, dy.shape().to_string());
  const Device& device = dy.device();
  float_type(op, "dy", dy);
  check_tensor(op, "tokens", tokens, {dy.dim(0)}, device, DType::I32);
  require(dy.dim(1) > 0 && dtable.size % dy.dim(1) == 0, "{}: a gradient of {} elements is not a table of width {}", op,
          dtable.size, dy.dim(1));
  if (on_cpu(dy)) return cpu::embedding_backward(dy, tokens, dtable);
  const DeviceWork work(dy.device(), op, {.bytes = bytes_of(dy, tokens, dy)});
  cuda::embedding_backward(dy, tokens, dtable);
}

}  // namespace switchyard
