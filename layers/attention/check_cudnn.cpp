#include "layers/attention/check_cudnn.h"

#include "layers/attention/attention_cuda.h"
#include "layers/ops/convert.h"
#include "layers/tensor/random.h"

#include <utility>
#include <vector>

namespace switchyard::cudnn {
namespace {

Tensor random_tensor(Arena& arena, const Shape& shape, std::uint64_t number) {
  std::vector<float> values(usize(shape.size()));
  fill_normal(Random(number, "attention's comparison"), 0, shape.size(), 1.0, values.data());
  Tensor tensor = allocate(arena, shape, DType::BF16);
  const ArenaScope scope(arena);
  convert(upload(arena, std::span<const float>(values)).reshaped(shape), tensor);
  return tensor;
}

std::vector<float> values_of(Arena& arena, const Tensor& tensor) {
  const ArenaScope scope(arena);
  Tensor wide = tensor;
  if (tensor.dtype() != DType::F32) {
    wide = allocate(arena, tensor.shape());
    convert(tensor, wide);
  }
  std::vector<float> values(usize(wide.size()));
  Device& device = arena.device();
  device.copy_to_host(values.data(), wide.raw(), Bytes(wide.size() * size_of(DType::F32)), device.stream());
  return values;
}

}  // namespace

double difference_from_ours(Device& device, const AttentionShape& shape,
                            const std::function<void(const AttentionTensors&)>& forward,
                            const std::function<void(const AttentionTensors&, Arena& scratch)>& backward) {
  Arena arena(device);
  const AttentionShapes of(shape);
  const auto results = [&](AttentionTensors inputs) {
    inputs.dq = allocate(arena, of.q, DType::BF16);
    inputs.dk = allocate(arena, of.k, DType::BF16);
    inputs.dv = allocate(arena, of.v, DType::BF16);
    return inputs;
  };
  AttentionTensors inputs{.q = random_tensor(arena, of.q, 1),
                          .k = random_tensor(arena, of.k, 2),
                          .v = random_tensor(arena, of.v, 3),
                          .out = allocate(arena, of.out, DType::BF16),
                          .log_sum_exp = allocate(arena, of.log_sum_exp),
                          .dout = random_tensor(arena, of.out, 4),
                          .dq = {},
                          .dk = {},
                          .dv = {}};
  const AttentionTensors ours = results(inputs);
  cuda::attention(shape, ours.q, ours.k, ours.v, ours.out, ours.log_sum_exp);
  cuda::attention_backward(shape, ours.dout, ours.q, ours.k, ours.v, ours.out, ours.log_sum_exp, arena, ours.dq,
                           ours.dk, ours.dv);
  inputs.out = allocate(arena, of.out, DType::BF16);
  inputs.log_sum_exp = allocate(arena, of.log_sum_exp);
  const AttentionTensors theirs = results(inputs);
  forward(theirs);
  backward(theirs, arena);

  double largest = 0;
  constexpr std::int64_t positions = 64;
  const auto compare = [&](const Tensor& got, const Tensor& wanted, std::int64_t block) {
    const std::vector<float> theirs_here = values_of(arena, got);
    largest = std::max(largest, largest_difference(theirs_here, values_of(arena, wanted), usize(block)));
  };
  compare(theirs.log_sum_exp, ours.log_sum_exp, positions);
  for (const auto result :
       {&AttentionTensors::out, &AttentionTensors::dq, &AttentionTensors::dk, &AttentionTensors::dv}) {
    compare(theirs.*result, ours.*result, positions * (ours.*result).cols());
  }
  return largest;
}

}  // namespace switchyard::cudnn
