#include "layers/tensor/tensor.h"

#include <cstddef>
#include <limits>

namespace switchyard {

Shape::Shape(std::initializer_list<std::int64_t> dims) {
  require(dims.size() <= usize(max_rank), "a shape has {} dimensions, at most {} are possible", dims.size(), max_rank);
  std::int64_t size = 1;
  for (const std::int64_t dim : dims) {
    require(dim >= 0, "dimension {} of a shape is {}, less than 0", rank_, dim);
    require(dim == 0 || size <= std::numeric_limits<std::int64_t>::max() / dim,
            "a shape has more elements than 64 bits can count");
    size *= dim;
    dims_[usize(rank_++)] = dim;
  }
}

std::int64_t Shape::size() const {
  if (rank_ == 0) return 0;
  std::int64_t size = 1;
  for (int i = 0; i < rank_; ++i) size *= dims_[usize(i)];
  return size;
}

std::string Shape::to_string() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(dims_[usize(i)]);
  }
  return text + "]";
}

Tensor Tensor::reshaped(Shape shape) const {
  require(shape.size() == size(), "{} cannot be seen as {}: {} elements against {}", shape_.to_string(),
          shape.to_string(), size(), shape.size());
  Tensor result = *this;
  result.shape_ = shape;
  return result;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t count) const {
  require(shape_.rank() > 0, "a slice of an undefined tensor was asked for");
  require(begin >= 0 && count >= 0 && begin <= dim(0) - count, "rows {} to {} of a tensor {} were asked for", begin,
          begin + count, shape_.to_string());
  const std::int64_t row_bytes = dim(0) == 0 ? 0 : size() / dim(0) * size_of(dtype_);
  Tensor result = *this;
  result.data_ = static_cast<std::byte*>(data_) + begin * row_bytes;
  result.shape_.dims_[0] = count;
  return result;
}

Tensor allocate(Arena& arena, Shape shape, DType dtype) {
  return Tensor(arena.take(Bytes(shape.size() * size_of(dtype))), dtype, shape, arena.device());
}

Tensor allocate_zero(Arena& arena, Shape shape, DType dtype) {
  const Tensor tensor = allocate(arena, shape, dtype);
  Device& device = arena.device();
  device.fill(tensor.raw(), 0, Bytes(tensor.size() * size_of(dtype)), device.stream());
  return tensor;
}

namespace {
template <class T>
Tensor upload_values(Arena& arena, std::span<const T> values) {
  Tensor tensor = allocate(arena, {isize(values.size())}, dtype_of<T>());
  Device& device = arena.device();
  device.copy_from_host(tensor.raw(), values.data(), Bytes(isize(values.size_bytes())), device.stream());
  return tensor;
}
}  // namespace

Tensor upload(Arena& arena, std::span<const std::int32_t> values) {
  return upload_values(arena, values);
}
Tensor upload(Arena& arena, std::span<const float> values) {
  return upload_values(arena, values);
}

std::vector<Tensor> upload(Arena& arena, std::initializer_list<std::span<const std::int32_t>> lists) {
  constexpr std::int64_t aligned = 16;  // elements: a list begins as arrays do
  std::vector<std::int32_t> together;
  std::vector<std::int64_t> begins;
  for (const std::span<const std::int32_t>& list : lists) {
    begins.push_back(isize(together.size()));
    together.insert(together.end(), list.begin(), list.end());
    together.resize((together.size() + aligned - 1) / aligned * aligned);
  }
  const Tensor all = upload(arena, std::span<const std::int32_t>(together));
  std::vector<Tensor> tensors;
  for (const std::span<const std::int32_t>& list : lists) {
    tensors.push_back(all.slice(begins[tensors.size()], isize(list.size())));
  }
  return tensors;
}

void check_shape(const char* op, const char* name, const Tensor& tensor, const Shape& wanted) {
  require(tensor.defined(), "{}: {} is undefined, wanted {}", op, name, wanted.to_string());
  require(tensor.shape() == wanted, "{}: {} is {}, wanted {}", op, name, tensor.shape().to_string(),
          wanted.to_string());
}

void check_tensor(const char* op, const char* name, const Tensor& tensor, const Shape& wanted, const Device& device,
                  DType dtype) {
  check_shape(op, name, tensor, wanted);
  require(tensor.dtype() == dtype, "{}: {} is {}, wanted {}", op, name, name_of(tensor.dtype()), name_of(dtype));
  require(&tensor.device() == &device, "{}: {} lies on {}, the other tensors on {}", op, name, tensor.device().name(),
          device.name());
}

void fail_on_device(const char* op, const Device& device) {
  fail(ErrorKind::Runtime, "{} has no code for the device {}", op, device.name());
}

}  // namespace switchyard
