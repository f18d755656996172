// Elementwise ops on a CUDA device against the CPU's.
#include "layers/ops/activation.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

#include <functional>
#include <string>

namespace switchyard::test {
namespace {

// Up to three inputs and two outputs, each of n elements.
struct Op {
  std::string name;
  std::function<void(const std::vector<Tensor>& in, const std::vector<Tensor>& out)> run;
};
const std::vector<Op> ops = {
    {"swiglu", [](const auto& in, const auto& out) { swiglu(in[0], in[1], out[0]); }},
    {"swiglu_backward", [](const auto& in, const auto& out) { swiglu_backward(in[0], in[1], in[2], out[0], out[1]); }},
    {"gelu", [](const auto& in, const auto& out) { gelu(in[0], out[0]); }},
    {"gelu_backward", [](const auto& in, const auto& out) { gelu_backward(in[0], in[1], out[0]); }},
    {"relu", [](const auto& in, const auto& out) { relu(in[0], out[0]); }},
    {"relu_backward", [](const auto& in, const auto& out) { relu_backward(in[0], in[1], out[0]); }},
    {"add_in_place", [](const auto& in, const auto&) { add_in_place(in[0], in[1]); }},
    {"swiglu_backward in place",
     [](const auto& in, const auto&) { swiglu_backward(in[0], in[1], in[2], in[1], in[2]); }},
};

// All that there is afterwards, outputs and inputs; `offset`: where in its memory each tensor begins.
std::vector<float> run(const Op& op, Device& device, std::int64_t n, std::int64_t offset, DType dtype, DType as) {
  std::vector<DeviceTensor> memory;
  std::vector<Tensor> in, out;
  for (std::uint64_t i = 0; i < 3; ++i) {
    auto values = random_values(offset + n, 10 + i, 3);
    if (n > 5) values[usize(offset + 5)] = i == 1 ? 90.0F : -90.0F;  // the exponential's ends
    memory.emplace_back(device, rounded(values, dtype), Shape{offset + n}, as);
    in.push_back(memory.back().get().slice(offset, n));
  }
  for (int i = 0; i < 2; ++i) {
    memory.emplace_back(device, std::vector<float>(usize(offset + n), -1.0F), Shape{offset + n}, as);
    out.push_back(memory.back().get().slice(offset, n));
  }
  op.run(in, out);
  std::vector<float> all;
  for (const DeviceTensor& tensor : memory) {
    const auto values = tensor.values();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

TEST_CASE("elementwise ops are the CPU's") {
  Device& cuda = cuda_device();
  for (const Op& op : ops) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      for (const std::int64_t n : {1, 7, 8, 255, 4096, 70001}) {
        for (const std::int64_t offset : {0, 3}) {
          CAPTURE(op.name, name_of(dtype), n, offset);
          auto got = run(op, cuda, n, offset, dtype, dtype);
          const auto wanted = run(op, cpu_device(), n, offset, dtype, DType::F32);
          const double limit = dtype == DType::F32 ? 1e-5 : 2e-2;
          CHECK(worst_error(got, wanted, 0.1) < limit);
          got.back() += 0.1F;  // planted
          CHECK(worst_error(got, wanted, 0.1) > limit);
        }
      }
    }
  }
}

TEST_CASE("no elements, wrong types") {
  Device& cuda = cuda_device();
  const DeviceTensor none(cuda, Shape{0, 5}), x(cuda, Shape{2, 2}), y(cuda, Shape{2, 2}, DType::BF16),
      z(cuda, Shape{2, 2}, DType::I32);
  relu(none, none);
  CHECK_THROWS_WITH(relu(x, y), "relu: y is bfloat16, wanted float32");
  CHECK_THROWS_WITH(relu(z, z), "relu: an input is int32, wanted float32");
}

}  // namespace
}  // namespace switchyard::test
