// RANKS 1 2 4
// The whole mixture layer against the oracle in double precision: outputs, gradients of the input, the router, the
// shared experts and every expert at its owner; every rank has a micro-batch of another size, the last one none.
#include "layers/moe/moe_layer.h"

#include "comm/group/environment.h"
#include "comm/group/topology.h"
#include "comm/reduce/exact.h"
#include "layers/tensor/random.h"
#include "tests/support/check.h"
#include "tests/support/moe_oracle.h"

#include <cmath>
#include <memory>
#include <string>

namespace switchyard {
namespace {

using test::Numbers;
using test::OracleNetwork;
using test::OracleResult;
using test::OracleSettings;
using test::OracleWeights;

std::vector<float> normals(const std::string& purpose, std::int64_t n, double deviation) {
  std::vector<float> values(usize(n));
  fill_normal(Random(7, purpose), 0, n, deviation, values.data());
  return values;
}
Numbers in_double(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

// Parameters under their names, here and in the oracle.
class Weights {
 public:
  Weights(const OracleSettings& s, const std::vector<std::int32_t>& local, Numerics numerics) : numerics_(numerics) {
    router = add("router", {s.experts, s.width}, {}, wanted.router, true);
    for (int e = 0; e < s.experts; ++e) {
      const bool here = std::find(local.begin(), local.end(), e) != local.end();
      const FeedForwardWeights network =
          add_network("expert " + std::to_string(e), s, s.inner, {0, e}, wanted.experts.emplace_back(), here);
      if (here) experts.push_back(network);
    }
    if (s.shared_inner > 0) shared = add_network("shared", s, s.shared_inner, {}, wanted.shared, true);
  }

  OracleWeights wanted;
  Parameter* router = nullptr;
  std::vector<FeedForwardWeights> experts;
  FeedForwardWeights shared;

 private:
  Parameter* add(const std::string& name, Shape shape, Owner owner, Numbers& twin, bool here) {
    const std::vector<float> values = normals(name, shape.size(), 0.4);
    twin = in_double(values);
    if (!here) return nullptr;
    parameters_.push_back(std::make_unique<Parameter>(cpu_device(), name, shape, owner, true, numerics_));
    std::copy(values.begin(), values.end(), parameters_.back()->value().f32());
    parameters_.back()->touch();
    parameters_.back()->set_partials(8);
    return parameters_.back().get();
  }
  FeedForwardWeights add_network(const std::string& name, const OracleSettings& s, int inner, Owner owner,
                                 OracleNetwork& twin, bool here) {
    FeedForwardWeights network;
    if (s.activation == Activation::SwiGLU)
      network.gate = add(name + " gate", {inner, s.width}, owner, twin.gate, here);
    network.up = add(name + " up", {inner, s.width}, owner, twin.up, here);
    network.down = add(name + " down", {s.width, inner}, owner, twin.down, here);
    return network;
  }

  Numerics numerics_;
  std::vector<std::unique_ptr<Parameter>> parameters_;
};

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

// The largest difference over the largest wanted value.
double difference(const float* got, const Numbers& wanted) {
  double largest = 1e-3, worst = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double here = std::abs(static_cast<double>(got[i]) - wanted[i]);
    largest = std::max(largest, std::abs(wanted[i]));
    worst = std::isnan(here) ? HUGE_VAL : std::max(worst, here);
  }
  return worst / largest;
}

void add(OracleNetwork& sum, const OracleNetwork& part) {
  for (const auto& member : {&OracleNetwork::gate, &OracleNetwork::up, &OracleNetwork::down}) {
    for (std::size_t i = 0; i < (sum.*member).size(); ++i) (sum.*member)[i] += (part.*member)[i];
  }
}

// Tokens of rank r's micro-batch.
int tokens_of(int r, int ranks) {
  return ranks > 1 && r == ranks - 1 ? 0 : 13 + 6 * r;
}

// Experts all over the ranks, some of them on several: made by hand, from nothing but their numbers.
Placement scattered(int experts, const std::vector<Node>& node_of) {
  const int ranks = static_cast<int>(node_of.size());
  std::vector<std::vector<Rank>> owners(usize(experts));
  for (int e = 0; e < experts; ++e) {
    for (int r = 0; r < ranks; ++r) {
      if (r == (5 * e + 1) % ranks || (e % 3 == 0 && (e + r) % 2 == 0)) owners[usize(e)].emplace_back(r);
    }
  }
  return {owners, node_of};
}

// moved: the layer is made with consecutive experts, and then they are put elsewhere.
void check_layer(const std::string& name, const OracleSettings& s, Numerics numerics, bool moved, const Group& world,
                 test::Checks& checks) {
  const double bound = 2e-5;
  const int rank = world.rank().value();
  const std::vector<Node> node_of = force_nodes(world.size(), 2).node_of;
  const Placement before(s.experts, world.size());
  const Placement placement = moved ? scattered(s.experts, node_of) : before;
  const Weights weights_before(s, before.local(world.rank()), numerics);
  Weights weights(s, placement.local(world.rank()), numerics);

  // What the oracle makes of every rank's micro-batch.
  const test::MoeOracle oracle(s);
  std::vector<std::vector<float>> x, dy;
  std::vector<OracleResult> wanted;
  OracleWeights sum = zeros_like(weights.wanted);
  for (int r = 0; r < world.size(); ++r) {
    const std::int64_t size = tokens_of(r, world.size()) * s.width;
    x.push_back(normals("x" + std::to_string(r), size, 1));
    dy.push_back(normals("dy" + std::to_string(r), size, 1));
    wanted.push_back(oracle.run(weights.wanted, in_double(x.back()), in_double(dy.back())));
    // Of an expert's gradient each copy has what its senders contribute.
    for (std::size_t e = 0; e < sum.experts.size(); ++e) {
      if (placement.owner(isize(e), Rank(r)) == world.rank()) add(sum.experts[e], wanted.back().gradients.experts[e]);
    }
  }

  ExchangeLane lane(make_flat_exchange(world, node_of));
  std::optional<FeedForward> shared;
  if (s.shared_inner > 0) shared.emplace(std::span(&weights.shared, 1), s.activation);
  const RouterSettings settings{
      .experts = s.experts, .top_k = s.top_k, .renormalise = s.renormalise, .aux_loss = s.aux_loss, .z_loss = s.z_loss};
  MoeLayer layer(Router(*weights.router, settings),
                 Experts(before.local(world.rank()), weights_before.experts, s.activation), std::move(shared), before,
                 lane, nullptr, numerics);
  if (moved) layer.place(placement, Experts(placement.local(world.rank()), weights.experts, s.activation));
  const std::vector<FeedForwardWeights>& experts = moved ? weights.experts : weights_before.experts;

  const std::int64_t tokens = tokens_of(rank, world.size());
  Device& device = cpu_device();
  Arena arena(device), scratch(device);
  Tensor input(x[usize(rank)].data(), DType::F32, {tokens, s.width}, device);
  Tensor gradient(dy[usize(rank)].data(), DType::F32, {tokens, s.width}, device);
  Tensor y = allocate(arena, input.shape());
  Tensor dx = allocate(arena, input.shape());
  MoeLayer::Saved saved;
  layer.make_room_for_report(arena, saved);
  layer.forward(input, Tensor(), s.capacity_factor, arena, scratch, saved, y);
  const MoeReport report = layer.report(saved);
  layer.backward(gradient, scratch, saved, dx);

  const OracleResult& mine = wanted[usize(rank)];
  const auto near = [&](const char* what, const float* got, const Numbers& want) {
    const double apart = difference(got, want);
    checks.expect(apart < bound, "{}: {} differs by {}", name, what, apart);
    if (want.empty()) return;
    Numbers spoiled = want;
    spoiled[spoiled.size() / 2] += 1e-3 * (1 + *std::max_element(want.begin(), want.end()));
    checks.expect(difference(got, spoiled) > bound, "{}: a planted fault in {} was not seen", name, what);
  };
  near("y", y.f32(), mine.y);
  near("dx", dx.f32(), mine.dx);
  near("the router's gradient", gradient_of(*weights.router).data(), mine.gradients.router);
  const auto near_network = [&](const std::string& what, const FeedForwardWeights& got, const OracleNetwork& want) {
    if (got.gate != nullptr) near((what + " gate").c_str(), gradient_of(*got.gate).data(), want.gate);
    near((what + " up").c_str(), gradient_of(*got.up).data(), want.up);
    near((what + " down").c_str(), gradient_of(*got.down).data(), want.down);
  };
  if (s.shared_inner > 0) near_network("shared", weights.shared, mine.gradients.shared);
  const std::vector<std::int32_t>& local = placement.local(world.rank());
  for (std::size_t i = 0; i < local.size(); ++i) {
    near_network("expert " + std::to_string(local[i]), experts[i], sum.experts[usize(local[i])]);
  }
  checks.expect(report.kept == mine.kept && report.dropped == mine.dropped,
                "{}: {} kept and {} dropped, wanted {} and {}", name, report.kept, report.dropped, mine.kept,
                mine.dropped);
  checks.expect(report.kept + report.dropped == tokens * s.top_k, "{}: slots are missing", name);
  checks.expect(std::equal(report.chosen.begin(), report.chosen.end(), mine.chosen.begin(), mine.chosen.end()),
                "{}: other experts were chosen", name);
  double dot = 0;
  for (std::size_t i = 0; i < mine.y.size(); ++i) dot += mine.y[i] * static_cast<double>(dy[usize(rank)][i]);
  const double losses = mine.loss - dot;
  checks.expect(std::abs(report.losses.aux + report.losses.z - losses) < 1e-5 * (1 + losses),
                "{}: losses {} + {}, wanted {}", name, report.losses.aux, report.losses.z, losses);
}

// The oracle's own gradients against central differences, with the routing held still.
void check_oracle(const std::string& name, const OracleSettings& s, test::Checks& checks) {
  const test::MoeOracle oracle(s);
  OracleWeights weights = Weights(s, {}, Numerics::Fast).wanted;
  Numbers x = in_double(normals("x0", 13 * s.width, 1));
  const Numbers dy = in_double(normals("dy0", 13 * s.width, 1));
  std::vector<int> choices;
  const OracleResult result = oracle.run(weights, x, dy, &choices);
  const auto probe = [&](const char* what, Numbers& values, const Numbers& gradient) {
    for (std::size_t i = 1; i < values.size(); i += 37) {
      const double kept = values[i];
      values[i] = kept + 1e-5;
      const double above = oracle.run(weights, x, dy, &choices).loss;
      values[i] = kept - 1e-5;
      const double below = oracle.run(weights, x, dy, &choices).loss;
      values[i] = kept;
      const double slope = (above - below) / 2e-5;
      checks.expect(std::abs(slope - gradient[i]) < 1e-6 * (1 + std::abs(slope)), "oracle, {}: {}[{}] is {}, slope {}",
                    name, what, i, gradient[i], slope);
    }
  };
  probe("x", x, result.dx);
  probe("router", weights.router, result.gradients.router);
  for (std::size_t e = 0; e < weights.experts.size(); ++e) {
    probe("gate", weights.experts[e].gate, result.gradients.experts[e].gate);
    probe("up", weights.experts[e].up, result.gradients.experts[e].up);
    probe("down", weights.experts[e].down, result.gradients.experts[e].down);
  }
  probe("shared up", weights.shared.up, result.gradients.shared.up);
  probe("shared down", weights.shared.down, result.gradients.shared.down);
}

}  // namespace
}  // namespace switchyard

int main() {
  using namespace switchyard;
  Environment environment;
  const Group& world = environment.world();
  test::Checks checks(world);
  const auto check = [&](const std::string& name, const OracleSettings& settings) {
    check_oracle(name, settings, checks);
    for (const bool moved : {false, true}) {
      const std::string what = name + (moved ? ", moved" : "");
      check_layer(what, settings, Numerics::Reproducible, moved, world, checks);
      check_layer(what + ", fast", settings, Numerics::Fast, moved, world, checks);
    }
  };
  OracleSettings base{.width = 10, .inner = 7, .experts = 6, .top_k = 2, .aux_loss = 0.3, .z_loss = 0.2};
  for (const Activation activation : {Activation::SwiGLU, Activation::GELU, Activation::ReLU}) {
    for (const bool renormalise : {true, false}) {
      for (int k = 1; k <= base.experts; ++k) {
        OracleSettings s = base;
        s.activation = activation;
        s.renormalise = renormalise;
        s.top_k = k;
        s.capacity_factor = k % 2 == 0 ? 0.8 : 0;
        s.shared_inner = k % 3 == 0 ? 9 : 0;
        check(fmt::format("activation {}, renormalise {}, top {}", static_cast<int>(activation), renormalise, k), s);
      }
    }
  }
  base.capacity_factor = 0.1;
  check("nearly all is dropped", base);
  base = {.width = 33, .inner = 50, .shared_inner = 17, .experts = 10, .top_k = 3, .aux_loss = 0.1};
  check("10 experts", base);
  base = {.width = 1, .inner = 1, .experts = 3, .top_k = 1, .renormalise = false, .z_loss = 1};
  check("width 1", base);
  base = {.width = 16, .inner = 24, .experts = 1, .top_k = 1};
  check("one expert", base);
  return checks.finish();
}
