#include "layers/tensor/parameter_list.h"

#include "comm/device/host_view.h"
#include "comm/device/work.h"
#include "layers/tensor/parameter_cuda.h"
#include "layers/tensor/random.h"

#include <algorithm>

namespace switchyard {

ParameterList::ParameterList(Device& device, Numerics numerics, std::vector<ParameterSpec> specs,
                             const std::function<bool(const ParameterSpec&)>& is_here, std::uint64_t seed,
                             std::int64_t micro_batches, DType compute)
    : device_(device), numerics_(numerics), micro_batches_(micro_batches), compute_(compute), specs_(std::move(specs)) {
  std::sort(specs_.begin(), specs_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  const auto twice =
      std::adjacent_find(specs_.begin(), specs_.end(), [](const auto& a, const auto& b) { return a.name == b.name; });
  require(twice == specs_.end(), "two parameters are named {}", twice == specs_.end() ? "" : twice->name);
  by_spec_.resize(specs_.size(), nullptr);
  if (device.kind() == DeviceKind::Cuda && numerics == Numerics::Reproducible) {
    non_finite_ = Buffer(device, Bytes(isize(specs_.size() * sizeof(std::uint32_t))));
    non_finite_.zero();
  }
  for (std::size_t i = 0; i < specs_.size(); ++i) {
    const ParameterSpec& spec = specs_[i];
    if (!is_here(spec)) continue;
    auto parameter = make(i);
    HostView<float> value(device, parameter->value().f32(), parameter->size(), HostAccess::Write);
    if (spec.deviation > 0) {
      fill_normal(Random(seed, "init/" + spec.name), 0, parameter->size(), spec.deviation, value.data());
    } else {
      std::fill_n(value.data(), parameter->size(), spec.constant);
    }
    value.give_back();
    parameter->touch();
    by_spec_[i] = parameter.get();
    parameters_.push_back(std::move(parameter));
  }
}

std::unique_ptr<Parameter> ParameterList::make(std::size_t index) const {
  const ParameterSpec& spec = specs_[index];
  auto* const marks = static_cast<std::uint32_t*>(non_finite_.data());
  auto parameter =
      std::make_unique<Parameter>(device_, spec.name, spec.shape, spec.owner, spec.decay, numerics_,
                                  spec.exact ? DType::F32 : compute_, marks == nullptr ? nullptr : marks + index);
  parameter->set_partials(micro_batches_ * spec.partials);
  return parameter;
}

std::size_t ParameterList::spec_named(const std::string& name) const {
  const auto found = std::lower_bound(specs_.begin(), specs_.end(), name,
                                      [](const ParameterSpec& spec, const std::string& n) { return spec.name < n; });
  return found == specs_.end() || found->name != name ? specs_.size() : usize(found - specs_.begin());
}

std::size_t ParameterList::spec_index(const Parameter& parameter) const {
  const std::size_t spec = spec_named(parameter.name());
  require(spec < specs_.size(), "{} is no parameter of this list", parameter.name());
  return spec;
}

Parameter* ParameterList::find(std::size_t spec) const {
  return by_spec_[spec];
}

Parameter& ParameterList::at(const std::string& name) const {
  const std::size_t spec = spec_named(name);
  require(spec < specs_.size() && by_spec_[spec] != nullptr, "this rank has no parameter named {}", name);
  return *by_spec_[spec];
}

void ParameterList::zero_gradients() {
  if (device_.kind() == DeviceKind::Cpu) {
    for (const auto& parameter : parameters_) parameter->zero_gradient();
    return;
  }
  std::vector<GradientSum> sums;
  double bytes = 0;
  for (const auto& parameter : parameters_) {
    sums.push_back(parameter->gradient());
    bytes += static_cast<double>(parameter->size() * size_of(sums.back().exact != nullptr ? DType::I64 : DType::F32));
  }
  const DeviceWork work(device_, "zero_gradients", {.bytes = bytes});
  cuda::zero_gradients(device_, sums);
}

bool ParameterList::take_non_finite() {
  if (non_finite_.data() == nullptr) {
    bool any = false;
    for (const auto& parameter : parameters_) {
      any = any || parameter->non_finite();
      parameter->clear_non_finite();
    }
    return any;
  }
  std::vector<std::uint32_t> marks(specs_.size());
  device_.copy_to_host(marks.data(), non_finite_.data(), non_finite_.size(), device_.stream());
  non_finite_.zero();
  return std::any_of(marks.begin(), marks.end(), [](std::uint32_t mark) { return mark != 0; });
}

Parameter& ParameterList::add(std::size_t spec) {
  require(by_spec_[spec] == nullptr, "{} is on this rank already", specs_[spec].name);
  auto parameter = make(spec);
  by_spec_[spec] = parameter.get();
  const auto place = std::lower_bound(parameters_.begin(), parameters_.end(), parameter,
                                      [](const auto& a, const auto& b) { return a->name() < b->name(); });
  return **parameters_.insert(place, std::move(parameter));
}

void ParameterList::remove(std::size_t spec) {
  require(by_spec_[spec] != nullptr, "{} is not on this rank", specs_[spec].name);
  std::erase_if(parameters_, [&](const auto& parameter) { return parameter.get() == by_spec_[spec]; });
  by_spec_[spec] = nullptr;
}

}  // namespace switchyard
