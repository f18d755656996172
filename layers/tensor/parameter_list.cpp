#include "layers/tensor/parameter_list.h"

#include "layers/tensor/random.h"

#include <algorithm>

namespace switchyard {

ParameterList::ParameterList(Device& device, Numerics numerics, std::vector<ParameterSpec> specs,
                             const std::function<bool(const ParameterSpec&)>& is_here, std::uint64_t seed)
    : specs_(std::move(specs)) {
  std::sort(specs_.begin(), specs_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    const ParameterSpec& spec = specs_[i];
    if (!is_here(spec)) continue;
    auto parameter = std::make_unique<Parameter>(device, spec.name, spec.shape, spec.owner, spec.decay, numerics);
    float* value = parameter->value().f32();
    if (spec.deviation > 0) {
      fill_normal(Random(seed, "init/" + spec.name), 0, parameter->size(), spec.deviation, value);
    } else {
      std::fill_n(value, parameter->size(), spec.constant);
    }
    parameter->touch();
    const bool is_new = by_name_.emplace(spec.name, parameters_.size()).second;
    require(is_new, "two parameters are named {}", spec.name);
    parameters_.push_back(std::move(parameter));
    spec_of_.push_back(i);
  }
}

std::size_t ParameterList::spec_index(const Parameter& parameter) const {
  return spec_of_[by_name_.at(parameter.name())];
}

Parameter& ParameterList::at(const std::string& name) const {
  const auto found = by_name_.find(name);
  require(found != by_name_.end(), "this rank has no parameter named {}", name);
  return *parameters_[found->second];
}

}  // namespace switchyard
