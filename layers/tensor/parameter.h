// A trained tensor: value, gradient, name, and who has it.
#pragma once

#include "comm/base/numerics.h"
#include "comm/device/device.h"
#include "layers/tensor/tensor.h"

#include <atomic>
#include <cstdint>
#include <string>

namespace switchyard {

// Where an op adds a parameter's partial gradient. Parameters accumulate, activations assign (llm.c's rule).
struct GradientSum {
  std::int64_t* exact = nullptr;               // reproducible: fixed point, see comm/reduce/exact.h
  float* plain = nullptr;                      // fast: fp32
  float limit = 0;                             // reproducible: what a partial must stay under
  std::atomic<bool>* non_finite = nullptr;     // reproducible, on the CPU: set where a partial does not
  std::uint32_t* device_non_finite = nullptr;  // the same in the memory of another device: made 1
  std::int64_t size = 0;
  Device* device = nullptr;  // where the sums lie
  Numerics numerics = Numerics::Fast;

  GradientSum part(std::int64_t offset, std::int64_t count) const;
};
// sum[i] += partial[i] for the first n elements; one call for one micro-batch's partial.
void add_partial(const GradientSum& sum, const float* partial, std::int64_t n);

struct Owner {
  int layer = -1;
  int expert = -1;  // -1: replicated on every rank
  bool replicated() const { return expert < 0; }
  bool operator==(const Owner&) const = default;
};

class Parameter {
 public:
  // value is fp32 and zero; the gradient is zero. compute: what products read, F32 or BF16. device_non_finite: a zero
  // in the memory of a CUDA device, for GradientSum; without, the parameter has one of its own.
  Parameter(Device& device, std::string name, Shape shape, Owner owner, bool decay, Numerics numerics,
            DType compute = DType::F32, std::uint32_t* device_non_finite = nullptr);
  Parameter(const Parameter&) = delete;
  Parameter& operator=(const Parameter&) = delete;

  const std::string& name() const { return name_; }
  const Shape& shape() const { return value_.shape(); }
  std::int64_t size() const { return value_.size(); }
  Owner owner() const { return owner_; }
  bool decays() const { return decay_; }  // weight decay applies

  const Tensor& value() const { return value_; }
  // Whoever writes the value says so: packed copies are then made anew.
  void touch() { ++version_; }
  std::uint64_t version() const { return version_; }

  const GradientSum& gradient() const { return gradient_; }
  Numerics numerics() const { return gradient_.numerics; }
  void set_partials(std::int64_t contributions);  // how many partials one step adds to an element (sets the limit)
  void zero_gradient();
  bool non_finite() const;  // on a CUDA device: waits for what it has under way
  void clear_non_finite();
  DType compute() const { return compute_; }

 private:
  std::string name_;
  Owner owner_;
  bool decay_;
  Buffer value_memory_;
  Buffer gradient_memory_;
  Tensor value_;
  Buffer non_finite_memory_;  // on a CUDA device, where the parameter has its own
  GradientSum gradient_;
  DType compute_;
  std::atomic<bool> non_finite_{false};
  std::uint64_t version_ = 0;
};

}  // namespace switchyard
