// The language model: embedding, layers, norm, logits, loss; forward and backward of one micro-batch at a time.
//   B sequences, S positions, T = B S tokens, D width, V vocabulary
//
// All calls but the constructor are collective over the exchange's group: a rank without a micro-batch passes one of no
// sequences (law 5).
#pragma once

#include "comm/exchange/lane.h"
#include "layers/tensor/parameter_list.h"
#include "trainer/config/config.h"
#include "trainer/model/block.h"
#include "trainer/model/graph_parts.h"
#include "trainer/model/rank_device.h"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace switchyard {

struct MicroBatch {
  std::int64_t sequences = 0;
  std::span<const std::int32_t> tokens;   // [B * S]
  std::span<const std::int32_t> targets;  // [B * S], the next tokens
};

struct MicroBatchReport {
  double loss = 0;      // mean cross-entropy, nats a token
  double aux_loss = 0;  // weighted, summed over layers
  double z_loss = 0;
  std::vector<MoeReport> moe;  // by mixture layer
  std::int64_t graphs = 0;     // as which its kernels were launched: 1 if as a whole, else parts of it
};

class Model {
 public:
  // The experts of this rank of the exchange's group, and all replicated parameters, initialised from the seed.
  // Collective over the lane's group, where the device is a GPU. placements: of the mixture layers, in order; without,
  // experts are consecutive in each.
  Model(const Config& config, Device& device, ExchangeLane& lane, std::span<const Placement> placements);
  Model(const Config& config, Device& device, ExchangeLane& lane);

  ParameterList& parameters() { return parameters_; }
  // Between the devices of the lane's group; null on the CPU.
  DeviceTransport* device_transport() const { return device_transport_.get(); }
  // Layer numbers of the mixtures, in order: what MicroBatchReport::moe is indexed by.
  const std::vector<std::int64_t>& moe_layers() const { return moe_layers_; }

  // The experts of a mixture, by place among moe_layers(), are elsewhere from now on. This rank's parameters are those
  // that the placement gives it already.
  void place(std::size_t mixture, const Placement& placement);
  void count_pairs(std::size_t mixture, std::span<std::int64_t> pairs);  // see MoeLayer::count_pairs

  // The most that a micro-batch has taken of the device: what is kept from forward to backward, and scratch.
  Bytes activations_peak() const;

  // Adds this micro-batch's gradient of loss + aux_loss + z_loss to the parameters' gradients.
  MicroBatchReport train(const MicroBatch& batch);
  // losses: [T], nats. Dropless, whatever the config's capacity factor.
  void evaluate(const MicroBatch& batch, std::span<float> losses);
  // logits: [T, V] of a whole batch, as training computes them (for comparison with other programs).
  void logits(const MicroBatch& batch, std::span<float> logits);

  // Generation with cached keys and values: feeds the next tokens of one sequence and gives the logits [V] after the
  // last. past: tokens fed before. The group must be this one rank.
  void decode(std::span<const std::int32_t> tokens, std::int64_t past, std::span<float> logits);

 private:
  DType dtype() const { return config_.train.dtype; }  // of activations

  // What a micro-batch's forward leaves for the report and for backward.
  struct Pass {
    std::int64_t sequences = 0;
    Tensor tokens, targets;  // int32 [T]
    std::vector<Block::Saved> layers;
    NormLayer::Saved norm;
    Tensor losses;   // [T]
    Tensor dhidden;  // [T, D], of the final norm's output
  };
  void forward(Pass& pass);
  void backward(Pass& pass);
  MicroBatchReport report(const Pass& pass) const;

  Block::Room room();
  Block::Runner runner(std::size_t layer, std::int64_t sequences);  // outside a graph of the whole

  // Both as one graph, for micro-batches of one size (model_graph.cpp).
  using Moves = std::array<std::int64_t, 5>;  // of the memory that a micro-batch works in
  struct Captured {
    Pass pass;
    std::unique_ptr<WorkGraph> graph;
    Moves moves{};
  };
  Moves memory_moves() const;
  void watch_memory(const Pass& pass);
  bool has_graph(std::int64_t sequences);
  MicroBatchReport launch_graph(const MicroBatch& batch);
  void pack_weights();

  void check(const MicroBatch& batch) const;
  // The embedded tokens, [T, D].
  Tensor embed(const Tensor& tokens);
  // Final norm's output, [T, D], of a forward that no backward follows: a layer's activations go when it is done.
  Tensor infer(const MicroBatch& batch, double capacity_factor);
  Tensor copy_to_device(std::span<const std::int32_t> values);

  Config config_;
  Device* device_;
  ExchangeLane* lane_;
  std::unique_ptr<DeviceTransport> device_transport_;  // null on the CPU
  ParameterList parameters_;
  std::vector<Block> blocks_;
  std::vector<std::int64_t> moe_layers_;
  NormLayer final_norm_;
  PackedWeight head_;
  Arena activations_;
  Arena scratch_;
  // Of mixtures, where parts of the rest are graphs, for which memory must stay where it is; else empty.
  Arena mixture_activations_;
  Arena mixture_scratch_;
  Buffer rope_memory_;
  Tensor rope_table_;                // [S, C]
  std::optional<GraphParts> parts_;  // where graphs are wanted and there may be any
  bool in_parts_ = false;            // the last micro-batch could not have been one graph
  std::optional<Captured> captured_;
  Moves last_moves_{};               // as the last micro-batch left them
  std::int64_t last_sequences_ = 0;  // of it
  bool may_capture_ = false;         // it took no memory, and the host took no part in it
  Buffer cache_memory_;
  std::vector<KeyValueCache> caches_;
};

}  // namespace switchyard
