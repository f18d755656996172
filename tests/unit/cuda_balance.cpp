// A router's losses and figures on a CUDA device against the CPU's.
#include "layers/moe/balance.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

#include <cmath>
#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

RouterFigures figures_of(const Tensor& probabilities, const Tensor& log_sum_exp, std::int64_t top_k,
                         const std::vector<std::int64_t>& chosen) {
  if (on_cpu(probabilities)) return router_figures(probabilities, log_sum_exp, top_k, chosen);
  const DeviceTensor sums(probabilities.device(), Shape{isize(chosen.size()) + 2}, DType::F64);
  router_sums(probabilities, log_sum_exp, sums);
  return router_figures(host_values<double>(sums), log_sum_exp.size(), top_k, chosen);
}

}  // namespace

TEST_CASE("balance, z and entropy are the CPU's") {
  Device& device = cuda_device();
  for (const std::int64_t tokens : {1, 5, 64, 200}) {
    for (const std::int64_t experts : {1, 8, 13, 256, 300}) {
      CAPTURE(tokens, experts);
      std::vector<float> p = random_values(tokens * experts, 1);
      for (float& x : p) x = std::abs(x) > 2 ? 0 : std::abs(x) / static_cast<float>(experts);
      const std::vector<float> sums = random_values(tokens, 2, 3);
      std::vector<std::int64_t> chosen;
      for (const std::int32_t n : random_indices(experts, 50, 3)) chosen.push_back(n);
      const auto figures = [&](Device& on) {
        const DeviceTensor probabilities(on, p, {tokens, experts}), log_sum_exp(on, sums, {tokens});
        const DeviceTensor gradient(on, Shape{tokens});
        const RouterFigures f = figures_of(probabilities, log_sum_exp, 2, chosen);
        z_loss_gradient(log_sum_exp, 0.3, gradient);
        std::vector<float> all = gradient.values();
        for (const double x : {f.balance, f.z, f.entropy}) all.push_back(static_cast<float>(x));
        return all;
      };
      const std::vector<float> wanted = figures(cpu_device());
      std::vector<float> got = figures(device);
      CHECK(worst_error(got, wanted, 1e-3) < 1e-5);
      CHECK(same_bits(got, figures(device)));
      got.back() += 1e-4F * (1 + std::abs(got.back()));  // planted
      CHECK(worst_error(got, wanted, 1e-3) > 1e-5);
    }
  }
}

TEST_CASE("a router without tokens has no losses") {
  Device& device = cuda_device();
  const DeviceTensor probabilities(device, Shape{0, 4}), log_sum_exp(device, Shape{0}), gradient(device, Shape{0});
  const RouterFigures f = figures_of(probabilities, log_sum_exp, 1, std::vector<std::int64_t>(4));
  CHECK(f.balance == 0);
  CHECK(f.z == 0);
  CHECK(f.entropy == 0);
  CHECK_NOTHROW(z_loss_gradient(log_sum_exp, 1, gradient));
}
