// RANKS 1 3 4
// The same tiny models as in PyTorch (weights and tokens of tests/golden): logits, losses and every gradient within
// 1e-5 of the largest value of the tensor. On several ranks the experts are spread, and rank 0 alone has the
// micro-batch.
#include "tests/support/golden.h"

#include "comm/group/environment.h"
#include "comm/reduce/exact.h"
#include "tests/support/check.h"
#include "trainer/config/load.h"
#include "trainer/model/model.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace switchyard {
namespace {

double largest_difference(const std::vector<float>& got, const std::vector<float>& wanted) {
  double largest = 0, difference = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(wanted[i])));
    const double here = std::abs(static_cast<double>(got[i]) - static_cast<double>(wanted[i]));
    difference = std::isnan(here) ? HUGE_VAL : std::max(difference, here);
  }
  return difference / std::max(largest, 1e-6);
}

std::vector<float> gradient_of(const Parameter& parameter) {
  std::vector<float> gradient(usize(parameter.size()));
  const GradientSum& sum = parameter.gradient();
  if (sum.exact != nullptr) {
    exact_to_float(sum.exact, sum.size, 1.0, gradient.data());
  } else {
    std::copy_n(sum.plain, sum.size, gradient.begin());
  }
  return gradient;
}

void check_model(const std::string& name, const std::string& numerics, const Group& world, test::Checks& checks) {
  const test::Golden golden(std::string(SWITCHYARD_SOURCE_DIR "/tests/golden/") + name);
  std::vector<std::string> sets = golden.config();
  sets.push_back("train.numerics=" + numerics);
  Config config = config_or_throw(load_config("", sets, world.size(), DataFiles::NotNeeded));

  ExchangeLane lane(make_flat_exchange(world, std::vector<Node>(usize(world.size()))));
  Model model(config, cpu_device(), lane);
  for (const auto& parameter : model.parameters().here()) {
    const std::vector<float> weight = golden.array<float>("weight/" + parameter->name());
    checks.expect(isize(weight.size()) == parameter->size(), "{}: {} has another size", name, parameter->name());
    std::copy(weight.begin(), weight.end(), parameter->value().f32());
    parameter->touch();
  }
  std::vector<std::int32_t> tokens, targets;
  if (world.is_root()) {
    tokens = golden.array<std::int32_t>("tokens");
    targets = golden.array<std::int32_t>("targets");
  }
  const MicroBatch batch{world.is_root() ? config.train.micro_batch : 0, tokens, targets};

  std::vector<float> logits(tokens.size() * usize(config.model.vocab));
  model.logits(batch, logits);
  const MicroBatchReport report = model.train(batch);
  if (world.is_root()) {
    const std::vector<float> wanted = golden.array<float>("logits");
    checks.expect(largest_difference(logits, wanted) < 1e-5, "{}: logits differ by {}", name,
                  largest_difference(logits, wanted));
    const auto near = [&](const char* what, double got, double want) {
      checks.expect(std::abs(got - want) <= 1e-5 * std::max(want, 1e-6), "{}: {} is {}, wanted {}", name, what, got,
                    want);
    };
    near("loss", report.loss, golden.number("loss"));
    near("aux_loss", report.aux_loss, golden.number("aux_loss"));
    near("z_loss", report.z_loss, golden.number("z_loss"));
    std::int64_t dropped = 0;
    for (const MoeReport& moe : report.moe) dropped += moe.dropped;
    near("dropped", static_cast<double>(dropped), golden.number("dropped"));
  }
  for (const auto& parameter : model.parameters().here()) {
    if (parameter->owner().replicated() && !world.is_root()) continue;  // rank 0 had all the tokens
    std::vector<float> wanted = golden.array<float>("gradient/" + parameter->name());
    const double difference = largest_difference(gradient_of(*parameter), wanted);
    checks.expect(difference < 1e-5, "{}: gradient of {} differs by {}", name, parameter->name(), difference);
    // The check itself must see a gradient that is off by a little in one place.
    wanted[wanted.size() / 2] += 1e-4F * (1 + std::abs(*std::max_element(wanted.begin(), wanted.end())));
    checks.expect(largest_difference(gradient_of(*parameter), wanted) > 1e-5, "{}: a planted fault in {} was not seen",
                  name, parameter->name());
  }
}

}  // namespace
}  // namespace switchyard

int main() {
  using namespace switchyard;
  Environment environment;
  test::Checks checks(environment.world());
  for (const char* name : {"mixtral_tiny", "gelu_shared_tiny", "switch_tiny"}) {
    check_model(name, "reproducible", environment.world(), checks);
    check_model(name, "fast", environment.world(), checks);
  }
  return checks.finish();
}
