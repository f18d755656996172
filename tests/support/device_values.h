// Tensors of a device from and to numbers of the host, for tests of ops that run on several devices.
#pragma once

#include "comm/device/device.h"
#include "layers/tensor/tensor.h"

#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

namespace switchyard::test {

// The nearest number that bf16 has, ties to even.
inline float rounded_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7fffU + ((bits >> 16) & 1U)) & 0xffff0000U);
}
inline std::vector<float> rounded(std::vector<float> values, DType dtype) {
  if (dtype == DType::BF16) {
    for (float& value : values) value = rounded_to_bf16(value);
  }
  return values;
}

// What a tensor holds, as it lies.
template <class T>
std::vector<T> host_values(const Tensor& tensor) {
  std::vector<T> result(usize(tensor.size()));
  tensor.device().copy_to_host(result.data(), tensor.raw(), Bytes(tensor.size() * size_of(tensor.dtype())),
                               tensor.device().stream());
  return result;
}

// A tensor in memory of its own.
class DeviceTensor {
 public:
  // Contents: 0xff in every byte, which is NaN.
  DeviceTensor(Device& device, Shape shape, DType dtype = DType::F32)
      : memory_(device, Bytes(shape.size() * size_of(dtype))), tensor_(memory_.data(), dtype, shape, device) {
    device.fill(memory_.data(), 0xff, memory_.size(), device.stream());
  }
  DeviceTensor(Device& device, const std::vector<float>& values, Shape shape, DType dtype = DType::F32)
      : DeviceTensor(device, shape, dtype) {
    require(isize(values.size()) == shape.size(), "{} values for {}", values.size(), shape.to_string());
    if (dtype == DType::F32) {
      give(values.data());
      return;
    }
    std::vector<std::uint16_t> halves(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      halves[i] = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(rounded_to_bf16(values[i])) >> 16);
    }
    give(halves.data());
  }
  DeviceTensor(Device& device, const std::vector<std::int32_t>& values)
      : DeviceTensor(device, {isize(values.size())}, DType::I32) {
    give(values.data());
  }

  const Tensor& get() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }

  std::vector<float> values() const {
    std::vector<float> result(usize(tensor_.size()));
    if (tensor_.dtype() == DType::F32) {
      take(result.data());
      return result;
    }
    std::vector<std::uint16_t> halves(result.size());
    take(halves.data());
    for (std::size_t i = 0; i < halves.size(); ++i) result[i] = std::bit_cast<float>(std::uint32_t{halves[i]} << 16);
    return result;
  }
  std::vector<std::int32_t> indices() const {
    std::vector<std::int32_t> result(usize(tensor_.size()));
    take(result.data());
    return result;
  }

 private:
  void give(const void* values) {
    tensor_.device().copy_from_host(memory_.data(), values, memory_.size(), tensor_.device().stream());
  }
  void take(void* values) const {
    tensor_.device().copy_to_host(values, memory_.data(), memory_.size(), tensor_.device().stream());
  }

  Buffer memory_;
  Tensor tensor_;
};

}  // namespace switchyard::test
