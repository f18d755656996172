// All parameters of a model as every rank knows them (specs), and those that this rank has (list).
#pragma once

#include "layers/tensor/parameter.h"

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
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
  std::int64_t partials = 1;  // how many partial gradients one micro-batch adds to an element
};

class ParameterList {
 public:
  // Makes the parameters of `specs` that `is_here` accepts, initialised from (seed, name, element): the same bits
  // wherever they are made.
  ParameterList(Device& device, Numerics numerics, std::vector<ParameterSpec> specs,
                const std::function<bool(const ParameterSpec&)>& is_here, std::uint64_t seed);

  const std::vector<ParameterSpec>& specs() const { return specs_; }
  const std::vector<std::unique_ptr<Parameter>>& here() const { return parameters_; }  // in name order
  std::size_t spec_index(const Parameter& parameter) const;                            // its place among specs()
  Parameter& at(const std::string& name) const;  // throws where this rank does not have it

 private:
  std::vector<ParameterSpec> specs_;
  std::vector<std::unique_ptr<Parameter>> parameters_;
  std::vector<std::size_t> spec_of_;
  std::unordered_map<std::string, std::size_t> by_name_;  // into parameters_
};

}  // namespace switchyard
