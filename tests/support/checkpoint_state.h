// A small model's state for tests of checkpoints: every value is a function of the tensor's name, its kind and a seed,
// whoever holds it; odd shapes, more experts in one layer than in the other, and floats that must survive as bits.
#pragma once

#include "layers/tensor/random.h"
#include "trainer/checkpoint/checkpoint.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace switchyard::test {

class TestState {
 public:
  explicit TestState(std::uint64_t seed) : seed_(seed) {}

  void add(const std::string& name, Owner owner, Shape shape, bool write = true) {
    for (const StateKind kind : {StateKind::Weight, StateKind::Moment1, StateKind::Moment2}) {
      memory_.emplace_back(usize(shape.size()), 0.0F);
      tensors_.push_back({name, kind, owner, shape, memory_.back().data(), write});
    }
  }
  // mine(layer, expert): whether this rank holds it; write: whether it writes the replicated ones.
  void add_model(const std::function<bool(int, int)>& mine, bool write) {
    add("embed_tokens.weight", {}, {13, 5}, write);
    for (int layer = 0; layer < 2; ++layer) {
      const std::string prefix = "layers." + std::to_string(layer) + ".";
      add(prefix + "input_layernorm.weight", {layer, -1}, {5}, write);
      add(prefix + "self_attn.q_proj.weight", {layer, -1}, {5, 7}, write);
      for (int expert = 0; expert < 3 + 2 * layer; ++expert) {
        if (!mine(layer, expert)) continue;
        const std::string name = prefix + "experts." + std::to_string(expert) + ".";
        for (const char* part : {"w_gate", "w_up"}) add(name + part, {layer, expert}, {5, 9});
        add(name + "w_down", {layer, expert}, {9, 5});
      }
    }
  }
  void fill() {
    for (const StateTensor& tensor : tensors_) {
      const Random random = values_of(tensor);
      for (std::int64_t i = 0; i < tensor.shape.size(); ++i) tensor.data[i] = value(random, i);
    }
  }
  // The first tensor that has not the values of fill(), to the bit; or "".
  std::string first_difference() const {
    for (const StateTensor& tensor : tensors_) {
      const Random random = values_of(tensor);
      for (std::int64_t i = 0; i < tensor.shape.size(); ++i) {
        const float wanted = value(random, i);
        if (std::memcmp(&tensor.data[i], &wanted, sizeof wanted) != 0) return tensor.name;
      }
    }
    return "";
  }
  std::vector<StateTensor>& tensors() { return tensors_; }

 private:
  Random values_of(const StateTensor& tensor) const {
    return {seed_, tensor.name + std::to_string(static_cast<int>(tensor.kind))};
  }
  static float value(const Random& random, std::int64_t i) {
    const auto bits = static_cast<std::uint32_t>(random.bits(static_cast<std::uint64_t>(i)));  // NaNs and denormals too
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
  }

  std::uint64_t seed_;
  std::deque<std::vector<float>> memory_;
  std::vector<StateTensor> tensors_;
};

inline RunState run_state(std::int64_t step) {
  RunState state;
  state.step = step;
  state.updates = step - 1;
  state.skipped = 1;
  state.tokens = step * 4096;
  state.next_sample = step * 8;
  state.seed = 0xfedcba9876543210;
  state.digest = 0x0123456789abcdef;
  state.run_id = "test-run";
  state.config_toml = "[model]\nd_model = 5 # \"quotes\", \xc3\xa9, \t\n";
  state.numerics = Numerics::Fast;
  return state;
}

inline std::filesystem::path make_temporary_folder(const std::filesystem::path& parent) {
  std::string name = (parent / "switchyard-checkpoint-XXXXXX").string();
  require(::mkdtemp(name.data()) != nullptr, "cannot create {}", name);
  return name;
}

}  // namespace switchyard::test
