#include "layers/tensor/parameter.h"

#include "comm/device/work.h"
#include "comm/reduce/exact.h"
#include "layers/tensor/parameter_cuda.h"

#include <utility>

namespace switchyard {

GradientSum GradientSum::part(std::int64_t offset, std::int64_t count) const {
  require(offset >= 0 && count >= 0 && offset <= size - count, "elements {} to {} of a gradient of {} were asked for",
          offset, offset + count, size);
  GradientSum result = *this;
  if (exact != nullptr) result.exact = exact + offset;
  if (plain != nullptr) result.plain = plain + offset;
  result.size = count;
  return result;
}

void add_partial(const GradientSum& sum, const float* partial, std::int64_t n) {
  require(n >= 0 && n <= sum.size, "a partial of {} elements for a gradient of {}", n, sum.size);
  if (sum.device != nullptr && sum.device->kind() == DeviceKind::Cuda) {
    const std::int64_t each = sum.exact != nullptr ? size_of(DType::I64) : size_of(DType::F32);
    const DeviceWork work(*sum.device, "add_partial", {.bytes = static_cast<double>(n * (4 + 2 * each))});
    return cuda::add_partial(sum, partial, n);
  }
  if (sum.exact != nullptr) {
    exact_add(sum.exact, partial, n, sum.limit, *sum.non_finite);
    return;
  }
  float* const plain = sum.plain;
#pragma omp parallel for simd schedule(static) if (n > 1 << 16)
  for (std::int64_t i = 0; i < n; ++i) plain[i] += partial[i];
}

Parameter::Parameter(Device& device, std::string name, Shape shape, Owner owner, bool decay, Numerics numerics,
                     DType compute, std::uint32_t* device_non_finite)
    : name_(std::move(name)),
      owner_(owner),
      decay_(decay),
      value_memory_(device, Bytes(shape.size() * size_of(DType::F32))),
      gradient_memory_(device,
                       Bytes(shape.size() * size_of(numerics == Numerics::Reproducible ? DType::I64 : DType::F32))),
      value_(value_memory_.data(), DType::F32, shape, device),
      compute_(compute) {
  require(compute == DType::F32 || (compute == DType::BF16 && device.kind() == DeviceKind::Cuda),
          "{} cannot be computed with as {} on {}", name_, name_of(compute), device.name());
  value_memory_.zero();
  gradient_.size = shape.size();
  gradient_.device = &device;
  gradient_.numerics = numerics;
  if (numerics == Numerics::Reproducible) {
    gradient_.exact = static_cast<std::int64_t*>(gradient_memory_.data());
    gradient_.non_finite = &non_finite_;
    if (device.kind() == DeviceKind::Cuda && device_non_finite == nullptr) {
      non_finite_memory_ = Buffer(device, Bytes(sizeof(std::uint32_t)));
      non_finite_memory_.zero();
      device_non_finite = static_cast<std::uint32_t*>(non_finite_memory_.data());
    }
    gradient_.device_non_finite = device_non_finite;
  } else {
    gradient_.plain = static_cast<float*>(gradient_memory_.data());
  }
  set_partials(1);
  zero_gradient();
}

bool Parameter::non_finite() const {
  std::uint32_t there = 0;
  if (gradient_.device_non_finite != nullptr) {
    Device& device = *gradient_.device;
    device.copy_to_host(&there, gradient_.device_non_finite, Bytes(sizeof(there)), device.stream());
  }
  return there != 0 || non_finite_.load(std::memory_order_relaxed);
}

void Parameter::clear_non_finite() {
  if (gradient_.device_non_finite != nullptr) {
    Device& device = *gradient_.device;
    device.fill(gradient_.device_non_finite, 0, Bytes(sizeof(std::uint32_t)), device.stream());
  }
  non_finite_.store(false, std::memory_order_relaxed);
}

void Parameter::set_partials(std::int64_t contributions) {
  gradient_.limit = exact_limit(contributions);
}

void Parameter::zero_gradient() {
  gradient_memory_.zero();
}

}  // namespace switchyard
