// The whole model's gradient against its own loss, along random directions, for every kind of norm, feed-forward and
// mixture: (loss(w + h d) - loss(w - h d)) / 2h is <gradient, d>. A seam that each layer's own test cannot see (a
// residual left out, a gradient added twice) shows here. ReLU has no slope at its kinks: tests/ranks/moe_layer.cpp has
// it.
#include "comm/reduce/exact.h"
#include "comm/transport/self.h"
#include "tests/support/catch.h"
#include "tests/support/op_test.h"
#include "trainer/config/load.h"
#include "trainer/loop/layout.h"
#include "trainer/model/model.h"

#include <cmath>
#include <limits>
#include <string>

using namespace switchyard;
using namespace switchyard::test;

namespace {

class TinyModel {
 public:
  explicit TinyModel(std::vector<std::string> more)
      : group_(make_self_transport()),
        config_(make_config(std::move(more))),
        layout_(group_, config_),
        model_(config_, cpu_device(), layout_.lane()) {
    const std::int64_t tokens = config_.train.micro_batch * config_.model.seq_len;
    tokens_ = random_indices(tokens, config_.model.vocab, 1);
    targets_ = random_indices(tokens, config_.model.vocab, 2);
    for (const auto& parameter : parameters()) {
      // Larger than at the start of training, so that every part matters. Routers are large: no move changes a choice.
      const bool router = parameter->name().find("router") != std::string::npos;
      const bool norm = parameter->shape().rank() == 1;
      std::vector<float> values = random_values(parameter->size(), 7 + seed_++, router ? 3 : 0.3);
      for (std::size_t i = 0; i < values.size(); ++i) parameter->value().f32()[i] = values[i] + (norm ? 1.0F : 0.0F);
      parameter->touch();
    }
  }

  const std::vector<std::unique_ptr<Parameter>>& parameters() { return model_.parameters().here(); }

  double loss(std::vector<std::vector<std::int64_t>>* chosen = nullptr) {
    for (const auto& parameter : parameters()) parameter->zero_gradient();
    const MicroBatchReport report =
        model_.train({.sequences = config_.train.micro_batch, .tokens = tokens_, .targets = targets_});
    if (chosen != nullptr) {
      for (const MoeReport& moe : report.moe) chosen->push_back(moe.chosen);
    }
    return report.loss + report.aux_loss + report.z_loss;
  }

  static std::vector<float> gradient_of(const Parameter& parameter) {
    std::vector<float> gradient(usize(parameter.size()));
    exact_to_float(parameter.gradient().exact, parameter.size(), 1.0, gradient.data());
    return gradient;
  }

 private:
  static Config make_config(std::vector<std::string> more) {
    std::vector<std::string> sets = {"model.vocab=23", "model.d_model=12",    "model.layers=2",
                                     "model.heads=3",  "model.d_ff=10",       "model.seq_len=7",
                                     "moe.experts=4",  "moe.aux_loss=0.1",    "moe.z_loss=0.1",
                                     "moe.top_k=2",    "train.micro_batch=2", "train.global_batch=2"};
    sets.insert(sets.end(), more.begin(), more.end());
    return config_or_throw(load_config("", sets, 1, DataFiles::NotNeeded));
  }

  Group group_;
  Config config_;
  Layout layout_;
  Model model_;
  std::vector<std::int32_t> tokens_, targets_;
  std::uint64_t seed_ = 0;
};

// Of the slope along a random direction in the elements of parameter `index` (-1: of all): how far the gradient is off,
// relative to the slope and the lengths of gradient and direction. NaN where a move changed what the router chose.
double slope_error(TinyModel& model, int index, double spoil = 0) {
  std::vector<std::vector<std::int64_t>> before, above_chosen, below_chosen;
  model.loss(&before);
  std::vector<std::vector<float>> values, directions;
  double product = 0, gradient_square = 0, direction_square = 0;
  for (std::size_t i = 0; i < model.parameters().size(); ++i) {
    const Parameter& parameter = *model.parameters()[i];
    values.emplace_back(parameter.value().f32(), parameter.value().f32() + parameter.size());
    std::vector<float> direction(usize(parameter.size()), 0.0F);
    if (index < 0 || usize(index) == i) direction = random_values(parameter.size(), 100 + i);
    const std::vector<float> gradient = TinyModel::gradient_of(parameter);
    for (std::size_t e = 0; e < direction.size(); ++e) {
      const double d = static_cast<double>(direction[e]);
      const double g = static_cast<double>(gradient[e]);
      product += d * g;
      if (d != 0) gradient_square += g * g;
      direction_square += d * d;
    }
    directions.push_back(direction);
  }
  const double step = 1e-2 / std::sqrt(direction_square);
  const auto loss_at = [&](double h, std::vector<std::vector<std::int64_t>>& chosen) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      Parameter& parameter = *model.parameters()[i];
      for (std::size_t e = 0; e < values[i].size(); ++e) {
        parameter.value().f32()[e] =
            static_cast<float>(static_cast<double>(values[i][e]) + h * static_cast<double>(directions[i][e]));
      }
      parameter.touch();
    }
    return model.loss(&chosen);
  };
  const double above = loss_at(step, above_chosen);
  const double below = loss_at(-step, below_chosen);
  std::vector<std::vector<std::int64_t>> back;
  loss_at(0, back);
  if (above_chosen != before || below_chosen != before) return std::numeric_limits<double>::quiet_NaN();
  const double slope = (above - below) / (2 * step);
  // What fp32 rounds away of the loss, some 1e-6, is a slope of 1e-4 along a step of 1e-2.
  const double length = std::sqrt(direction_square);
  return std::abs(slope - product * (1 + spoil)) /
         (0.1 * std::sqrt(gradient_square) * length + std::abs(slope) + 2e-2 * length);
}

}  // namespace

TEST_CASE("the gradient is the slope of the loss, for every kind of model") {
  const std::vector<std::vector<std::string>> kinds = {
      {},
      {"model.norm=layer"},
      {"model.activation=gelu", "model.tie_embeddings=false"},
      {"model.kv_heads=1", "moe.top_k=1", "moe.renormalise=false"},
      {"moe.shared_experts=2", "moe.every=2"},
      {"moe.every=0", "model.norm=layer", "model.activation=gelu"},
      {"moe.top_k=4"},
      {"moe.capacity_factor=0.6"},
  };
  for (const auto& kind : kinds) {
    TinyModel model(kind);
    INFO((kind.empty() ? std::string("the defaults") : kind.front()));
    int measured = 0;
    for (int index = -1; index < static_cast<int>(model.parameters().size()); ++index) {
      const double error = slope_error(model, index);
      if (std::isnan(error)) continue;
      ++measured;
      INFO((index < 0 ? std::string("all parameters") : model.parameters()[usize(index)]->name()));
      CHECK(error < 0.01);
    }
    CHECK(measured > static_cast<int>(model.parameters().size()) * 3 / 4);
  }
}

TEST_CASE("a gradient that is a tenth too large is seen") {
  TinyModel model({});
  int seen = 0, measured = 0;
  for (int index = 0; index < static_cast<int>(model.parameters().size()); ++index) {
    const double error = slope_error(model, index, 0.1);
    if (std::isnan(error)) continue;
    ++measured;
    seen += error > 0.01 ? 1 : 0;
  }
  CHECK(seen > measured / 2);  // where the direction is across the gradient there is little to see
}
