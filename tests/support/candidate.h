// A small model in training, on any layout, to be compared with another one bit by bit.
#pragma once

#include "layers/tensor/random.h"
#include "trainer/loop/engine.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

namespace switchyard::test {

// Tensors of less than a block, of a few, and of no whole number of them; 5 micro-batches.
inline Config small_config() {
  Config config;
  config.model = {.vocab = 300, .d_model = 48, .layers = 2, .heads = 4, .kv_heads = 2, .d_ff = 200, .seq_len = 8};
  config.moe = {.experts = 8, .top_k = 2};
  config.train.steps = 20;
  config.train.global_batch = 5;
  config.train.micro_batch = 1;
  config.train.warmup_steps = 2;
  config.train.lr = 1e-2;
  return config;
}

// Of a tensor of the state, from whichever ranks have pieces of it that they are to write.
struct Whole {
  std::vector<double> elements;       // one contributor each
  std::vector<std::int64_t> writers;  // how many ranks write each element
};

struct Candidate {
  Candidate(const Config& config_, const Group& world, std::int64_t zero)
      : config(with_zero(config_, zero)), layout(world, config), engine(config, layout, cpu_device()) {}

  static Config with_zero(Config config, std::int64_t zero) {
    config.parallel.zero = zero;
    return config;
  }

  StepReport step(const StepHooks& hooks = {}) {
    const Random random(1, "tokens");
    const auto read = [&](std::int64_t sample, std::span<std::int32_t> tokens) {
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        const std::uint64_t at = static_cast<std::uint64_t>(sample) * tokens.size() + i;
        tokens[i] = static_cast<std::int32_t>(random.bits(at) % static_cast<std::uint64_t>(config.model.vocab));
      }
    };
    const StepReport report = engine.step(steps, updates, steps * config.train.global_batch, read, hooks);
    ++steps;
    updates += report.applied ? 1 : 0;
    return report;
  }

  // Collective: every tensor of the state, from its writers.
  std::map<std::string, Whole> whole_state() {
    std::map<std::string, Whole> all;
    for (const ParameterSpec& spec : engine.model().parameters().specs()) {
      for (const char* kind : {"0", "1", "2"}) {
        const std::size_t size = usize(spec.shape.size());
        all[spec.name + kind] = {std::vector<double>(size, 0.0), std::vector<std::int64_t>(size, 0)};
      }
    }
    for (const StateTensor& tensor : engine.state()) {
      if (!tensor.write) continue;
      Whole& whole = all[tensor.name + std::to_string(static_cast<int>(tensor.kind))];
      for (std::int64_t i = 0; i < tensor.elements(); ++i) {
        whole.elements[usize(tensor.offset + i)] = static_cast<double>(tensor.data[i]);
        ++whole.writers[usize(tensor.offset + i)];
      }
    }
    // In two sums over the ranks: one for each tensor would be hundreds.
    const auto sum_all = [&](auto Whole::*member) {
      auto flat = std::remove_reference_t<decltype(all.begin()->second.*member)>();
      for (auto& [name, whole] : all) flat.insert(flat.end(), (whole.*member).begin(), (whole.*member).end());
      layout.world().sum(flat);
      auto from = flat.begin();
      for (auto& [name, whole] : all) {
        std::copy_n(from, (whole.*member).size(), (whole.*member).begin());
        from += isize((whole.*member).size());
      }
    };
    sum_all(&Whole::elements);
    sum_all(&Whole::writers);
    return all;
  }

  Config config;
  Layout layout;
  Engine engine;
  std::int64_t steps = 0;
  std::int64_t updates = 0;
};

}  // namespace switchyard::test
