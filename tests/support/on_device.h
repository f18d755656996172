// What the tests of CUDA ops share: values that go to a device and come back, as fp32 or rounded to bf16. On a device
// with no GPU behind it the tests are left out.
#pragma once

#include "layers/tensor/tensor.h"
#include "tests/support/op_test.h"

#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

namespace switchyard::test {

inline float round_to_bf16(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return x;
  return std::bit_cast<float>((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}
// What is left of values where they are kept as `dtype`.
inline std::vector<float> rounded(std::vector<float> values, DType dtype) {
  if (dtype == DType::BF16) {
    for (float& x : values) x = round_to_bf16(x);
  }
  return values;
}

// A tensor and its memory.
class OnDevice {
 public:
  // Nothing but NaN.
  OnDevice(Device& device, Shape shape, DType dtype = DType::F32)
      : memory_(device, Bytes(shape.size() * size_of(dtype))), tensor_(memory_.data(), dtype, shape, device) {
    device.fill(memory_.data(), 0xff, memory_.size(), device.stream());
  }
  OnDevice(Device& device, Shape shape, const std::vector<float>& values, DType dtype = DType::F32)
      : OnDevice(device, shape, dtype) {
    require(shape.size() == isize(values.size()), "{} values for a tensor {}", values.size(), shape.to_string());
    if (dtype == DType::F32) return give(values.data());
    std::vector<std::uint16_t> halves;
    for (const float x : values) {
      halves.push_back(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(round_to_bf16(x)) >> 16));
    }
    give(halves.data());
  }
  OnDevice(Device& device, Shape shape, const std::vector<std::int32_t>& values) : OnDevice(device, shape, DType::I32) {
    give(values.data());
  }

  const Tensor& tensor() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }

  std::vector<float> values() const {
    if (tensor_.dtype() == DType::F32) return get<float>();
    std::vector<float> all;
    for (const std::uint16_t half : get<std::uint16_t>()) {
      all.push_back(std::bit_cast<float>(std::uint32_t{half} << 16));
    }
    return all;
  }
  std::vector<std::int32_t> integers() const { return get<std::int32_t>(); }

 private:
  void give(const void* values) {
    tensor_.device().copy_from_host(tensor_.raw(), values, memory_.size(), tensor_.device().stream());
  }
  template <class T>
  std::vector<T> get() const {
    std::vector<T> values(usize(tensor_.size()));
    tensor_.device().copy_to_host(values.data(), tensor_.raw(), memory_.size(), tensor_.device().stream());
    return values;
  }

  Buffer memory_;
  Tensor tensor_;
};

}  // namespace switchyard::test
