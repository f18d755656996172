// A view of contiguous, row-major memory on a device. Whoever made the memory (an Arena, a Buffer) owns it.
//
// Ops take inputs as `const Tensor&` and outputs by value (a view is four words); inputs come first, outputs last.
#pragma once

#include "comm/base/dtype.h"
#include "comm/base/error.h"
#include "comm/device/device.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

namespace switchyard {

class Shape {
 public:
  static constexpr int max_rank = 4;
  Shape() = default;  // no dimensions and no elements: an undefined tensor's
  Shape(std::initializer_list<std::int64_t> dims);
  int rank() const { return rank_; }
  std::int64_t operator[](int i) const { return dims_[usize(i < 0 ? rank_ + i : i)]; }  // negative: from the end
  std::int64_t size() const;
  std::string to_string() const;  // "[2, 512]"
  bool operator==(const Shape&) const = default;

 private:
  friend class Tensor;
  std::array<std::int64_t, max_rank> dims_{};
  int rank_ = 0;
};

class Tensor {
 public:
  Tensor() = default;
  Tensor(void* data, DType dtype, Shape shape, Device& device)
      : data_(data), shape_(shape), device_(&device), dtype_(dtype) {}

  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  Device& device() const { return *device_; }
  bool defined() const { return device_ != nullptr; }
  std::int64_t size() const { return shape_.size(); }
  std::int64_t dim(int i) const { return shape_[i]; }
  std::int64_t cols() const { return shape_.rank() == 0 ? 0 : shape_[-1]; }       // the last dimension
  std::int64_t rows() const { return cols() == 0 ? 0 : shape_.size() / cols(); }  // all the others together
  void* raw() const { return data_; }

  // Throws where T is not the tensor's type.
  template <class T>
  T* data() const {
    require(dtype_of<T>() == dtype_, "a {} tensor was read as {}", name_of(dtype_), name_of(dtype_of<T>()));
    return static_cast<T*>(data_);
  }
  float* f32() const { return data<float>(); }
  std::int32_t* i32() const { return data<std::int32_t>(); }

  Tensor reshaped(Shape shape) const;                          // the same elements
  Tensor slice(std::int64_t begin, std::int64_t count) const;  // of the first dimension

 private:
  void* data_ = nullptr;
  Shape shape_;
  Device* device_ = nullptr;
  DType dtype_ = DType::F32;
};

Tensor allocate(Arena& arena, Shape shape, DType dtype = DType::F32);  // undefined contents
Tensor allocate_zero(Arena& arena, Shape shape, DType dtype = DType::F32);

// What the tensors' elements take, added up: for measurements.
template <class... Tensors>
double bytes_of(const Tensors&... tensors) {
  return (... + static_cast<double>(tensors.size() * size_of(tensors.dtype())));
}

// A copy of what the host has.
Tensor upload(Arena& arena, std::span<const std::int32_t> values);
Tensor upload(Arena& arena, std::span<const float> values);
// Of several lists, which go together: a copy costs the host more than what it carries.
std::vector<Tensor> upload(Arena& arena, std::initializer_list<std::span<const std::int32_t>> lists);

// Throws Error(Runtime) "op: name is [..], wanted [..]".
void check_shape(const char* op, const char* name, const Tensor& tensor, const Shape& wanted);
// The same, and the element type and the device (the one on which the op runs).
void check_tensor(const char* op, const char* name, const Tensor& tensor, const Shape& wanted, const Device& device,
                  DType dtype = DType::F32);
inline bool on_cpu(const Tensor& tensor) {
  return tensor.device().kind() == DeviceKind::Cpu;
}
// Throws Error(Runtime): the op has no code for this device.
[[noreturn]] void fail_on_device(const char* op, const Device& device);

}  // namespace switchyard
