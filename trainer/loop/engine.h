// One training step over all ranks: micro-batches, exact gradient sums, clipping, update.
#pragma once

#include "comm/device/host_view.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/loop/layout.h"
#include "trainer/model/model.h"
#include "trainer/optim/optimizer.h"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace switchyard {

// Of one mixture layer, over the whole global batch.
struct LayerLoad {
  std::int64_t layer = 0;
  std::vector<std::int64_t> chosen;  // [E] slots before drops
  std::int64_t kept = 0;
  std::int64_t dropped = 0;
  double entropy = 0;                  // of the router's distribution, mean over tokens, nats
  double max_violation = 0;            // mean over micro-batches of (largest load / mean load - 1)
  double rank_load_max_over_mean = 0;  // of the ranks' work, as the experts are placed
  double load_max_over_mean() const;
  std::int64_t dead_experts() const;
  double drop_rate() const;
};

// Gives sequence number `sample`: seq_len + 1 tokens. The same on every rank.
using ReadSequence = std::function<void(std::int64_t sample, std::span<std::int32_t> tokens)>;

// Experts were moved after a step.
struct RebalanceReport {
  std::int64_t layers = 0;  // in which experts moved
  std::int64_t moved = 0;   // copies of experts that came to a rank
  // The work of the busiest rank over the mean, in the layer where it is largest, by the loads since the last time.
  double before = 0, after = 0;
  std::int64_t bytes = 0;  // sent by all ranks
  double seconds = 0;      // on this rank
};

// Alike on all ranks, and the same bits whatever the layout (times and what tells of the layout aside).
struct StepReport {
  double loss = 0, aux_loss = 0, z_loss = 0;  // means over micro-batches
  double lr = 0;
  double grad_norm = 0;
  bool applied = true;  // false: NaN, Inf or overflow somewhere, nothing was changed
  std::int64_t tokens = 0;
  std::vector<LayerLoad> layers;
  std::optional<RebalanceReport> rebalance;  // at multiples of moe.rebalance_every
};

// What the run loop has to say within a step.
struct StepHooks {
  // Asked on all ranks with the same report, before anything is changed: false leaves the update out.
  std::function<bool(const StepReport&)> accept;
  // Called before weights and moments are written or move (a snapshot of them may still be under way).
  std::function<void()> before_update;
};

class Engine {
 public:
  Engine(const Config& config, Layout& layout, Device& device);

  Model& model() { return model_; }
  const Config& config() const { return config_; }

  // Collective: moves experts, with all that belongs to them, to where `next` has them. Gives the bytes that this rank
  // has sent. What state() gave is no longer valid.
  Bytes place(ExpertMap next);

  // Collective. step: from 0; updates: how many have been applied before.
  StepReport step(std::int64_t step, std::int64_t updates, std::int64_t first_sample, const ReadSequence& read,
                  const StepHooks& hooks = {});
  // Mean negative log-likelihood, nats a token, over sequences 0 to `sequences` - 1. Collective.
  double evaluate(const ReadSequence& read, std::int64_t sequences);
  // 64-bit digest of all parameters, in name order. Collective; throws where a parameter is not finite, and where its
  // copies differ between ranks: neither may be trained on, or saved.
  std::uint64_t digest();
  // The state that this rank has, and whether it is the one to write it: with parallel.zero = 1 moments are pieces,
  // each on one rank. Of a GPU's memory these are copies, which the next call makes anew.
  std::vector<StateTensor> state();
  Bytes optimizer_size() const { return optimizer_.state_size(); }  // of its moments on this rank
  // Values were loaded into what state() gave: what was derived from them is made anew.
  void touch();
  // The time that this rank has spent in the exchange since the last call.
  LaneTimes take_exchange_times() { return layout_.lane().take_times(); }

 private:
  void read_micro_batch(std::int64_t first_sample, std::int64_t sequences, const ReadSequence& read);
  RebalanceReport rebalance();
  DeviceTransport* device_transport() const;  // between the devices of all ranks; null on the CPU
  using Writers = std::array<Rank, 3>;        // of a parameter's state, by StateKind
  std::vector<Writers> writers();             // by place among the specs

  Config config_;
  Layout& layout_;
  Device& device_;
  Model model_;
  std::unique_ptr<DeviceTransport> world_transport_;  // where the model's does not reach all ranks
  Optimizer optimizer_;
  std::vector<std::vector<std::int64_t>> loads_;  // [mixtures][E], since experts were moved the last time
  std::vector<std::vector<std::int64_t>> pairs_;  // [mixtures][E, E]: likewise, of this rank; none where nodes are one
  std::vector<std::int32_t> tokens_, targets_, sequence_;
  std::vector<HostView<float>> state_views_;  // of a GPU's memory, for state()
};

}  // namespace switchyard
