// LABEL slow
// A list of parameters on a CUDA device: gradients that are made zero together, and marks of partials that overflow.
#include "comm/device/host_view.h"
#include "layers/tensor/parameter_list.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"

#include <algorithm>
#include <limits>

namespace switchyard::test {
namespace {

ParameterList make_list(Numerics numerics, std::int64_t count) {
  std::vector<ParameterSpec> specs;
  for (std::int64_t i = 0; i < count; ++i) {
    specs.push_back({.name = fmt::format("p{:03}", i), .shape = {1 + i * i * 37 % (i % 50 == 1 ? 9001 : 61)}});
  }
  const auto all = [](const ParameterSpec&) { return true; };
  return {cuda_device(), numerics, std::move(specs), all, /*seed=*/1};
}

void add(const Parameter& parameter, std::vector<float> partial) {
  const std::int64_t size = isize(partial.size());
  const DeviceTensor there(cuda_device(), partial, {size});
  add_partial(parameter.gradient(), there.get().f32(), size);
}

template <class T>
std::int64_t not_zero(T* gradient, std::int64_t size) {
  const HostView<T> view(cuda_device(), gradient, size);
  return size - std::count(view.data(), view.data() + size, T{0});
}
// Elements of all gradients that are not zero.
std::int64_t not_zero(const ParameterList& list) {
  std::int64_t found = 0;
  for (const auto& parameter : list.here()) {
    const GradientSum& sum = parameter->gradient();
    found += sum.exact != nullptr ? not_zero(sum.exact, sum.size) : not_zero(sum.plain, sum.size);
  }
  return found;
}

TEST_CASE("all gradients of a list become zero") {
  for (const Numerics numerics : {Numerics::Fast, Numerics::Reproducible}) {
    for (const std::int64_t count : {1, 3, 200}) {
      ParameterList list = make_list(numerics, count);
      std::int64_t elements = 0;
      for (const auto& parameter : list.here()) {
        const GradientSum& sum = parameter->gradient();
        void* const memory = sum.exact != nullptr ? static_cast<void*>(sum.exact) : sum.plain;
        const std::int64_t each = size_of(sum.exact != nullptr ? DType::I64 : DType::F32);
        cuda_device().fill(memory, 0x11, Bytes(sum.size * each), cuda_device().stream());
        elements += parameter->size();
      }
      CAPTURE(static_cast<int>(numerics), count);
      CHECK(not_zero(list) == elements);
      list.zero_gradients();
      CHECK(not_zero(list) == 0);
    }
  }
}

TEST_CASE("a partial that is not finite is found among many, once") {
  ParameterList list = make_list(Numerics::Reproducible, 40);
  CHECK_FALSE(list.take_non_finite());
  for (const std::size_t at : {std::size_t{0}, std::size_t{39}}) {
    Parameter& parameter = *list.here()[at];
    add(parameter, {std::numeric_limits<float>::quiet_NaN()});
    CHECK(parameter.non_finite());
    CHECK_FALSE(list.here()[7]->non_finite());
    CHECK(list.take_non_finite());
    CHECK_FALSE(list.take_non_finite());
    CHECK_FALSE(parameter.non_finite());
  }
  // One that leaves and comes again has a mark as the others do.
  list.remove(5);
  Parameter& come = list.add(5);
  add(come, {std::numeric_limits<float>::infinity()});
  CHECK(come.non_finite());
  come.clear_non_finite();
  CHECK_FALSE(list.take_non_finite());
}

}  // namespace
}  // namespace switchyard::test
