// All parameters of a model as every rank knows them (specs), and those that this rank has (list). Which it has may
// change: experts come and leave.
#pragma once

#include "layers/tensor/parameter.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace switchyard {

// A parameter before anything is allocated: the same list on every rank, in name order.
struct ParameterSpec {
  std::string name;
  Shape shape;
  Owner owner{};
  bool decay = true;
  float constant = 0;         // initial value where deviation is 0 (norm weights: 1)
  double deviation = 0;       // standard deviation of normal initial values
  bool exact = false;         // products with it are in fp32 whatever the others are in
  std::int64_t partials = 1;  // how many partial gradients one micro-batch adds to an element
};

class ParameterList {
 public:
  // Makes the parameters of `specs` that `is_here` accepts, initialised from (seed, name, element): the same bits
  // wherever they are made. micro_batches: of a step, each of which adds its partial gradients. compute: what products
  // read, see Parameter.
  ParameterList(Device& device, Numerics numerics, std::vector<ParameterSpec> specs,
                const std::function<bool(const ParameterSpec&)>& is_here, std::uint64_t seed,
                std::int64_t micro_batches = 1, DType compute = DType::F32);

  Device& device() const { return device_; }
  const std::vector<ParameterSpec>& specs() const { return specs_; }
  const std::vector<std::unique_ptr<Parameter>>& here() const { return parameters_; }  // in name order
  std::size_t spec_index(const Parameter& parameter) const;                            // its place among specs()
  Parameter* find(std::size_t spec) const;       // null where this rank does not have it
  Parameter& at(const std::string& name) const;  // throws where this rank does not have it

  void zero_gradients();
  // Did any partial of a gradient overflow or turn NaN? Clears the marks. On a CUDA device: waits for what it has under
  // way.
  bool take_non_finite();

  // A parameter comes to this rank, with its value and gradient zero until they are filled; or it leaves. The places in
  // here() change, the other Parameters stay where they are.
  Parameter& add(std::size_t spec);
  void remove(std::size_t spec);

 private:
  std::size_t spec_named(const std::string& name) const;
  std::unique_ptr<Parameter> make(std::size_t spec) const;

  Device& device_;
  Numerics numerics_;
  std::int64_t micro_batches_;
  DType compute_;
  std::vector<ParameterSpec> specs_;
  Buffer non_finite_;  // on a CUDA device: GradientSum::device_non_finite of each spec
  std::vector<std::unique_ptr<Parameter>> parameters_;
  std::vector<Parameter*> by_spec_;
};

}  // namespace switchyard
