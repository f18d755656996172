#include "trainer/loop/memory_plan.h"

#include "layers/attention/attention_cudnn.h"
#include "layers/moe/placement.h"
#include "layers/ops/cross_entropy.h"
#include "layers/ops/gemm.h"
#include "trainer/model/attention_choice.h"
#include "trainer/model/catalogue.h"

#include <algorithm>
#include <cmath>

namespace switchyard {
namespace {

constexpr std::int64_t f32 = 4;

// The shapes of one micro-batch on one rank.
struct Load {
  std::int64_t tokens = 0;          // T
  std::int64_t received_rows = 0;   // R
  std::int64_t received_slots = 0;  // S
  bool in_rounds = false;           // R is bounded, and nothing of the experts is kept from forward to backward
};

// Of a mixture layer's experts in an expert group, all copies counted.
std::int64_t copies_in(const Config& config, const Grid& grid, int group) {
  const MoeConfig& moe = config.moe;
  return moe.experts + copies_that_fit(moe.replicas, moe.experts, grid.group_size(group));
}

// How many experts a rank has of each mixture layer: copies count, and lie as evenly as the experts alone.
std::int64_t experts_on(const Config& config, const Grid& grid, Rank rank) {
  const int group = grid.group_of(rank);
  const int in_group = rank.value() - grid.first_rank(group).value();
  return balanced_part(copies_in(config, grid, group), grid.group_size(group), in_group).size();
}

Load load_of(const Config& config, const Grid& grid, Rank rank) {
  Load load;
  load.tokens = config.train.micro_batch * config.model.seq_len;
  const std::int64_t micro_batches = config.train.global_batch / config.train.micro_batch;
  const double senders = std::min<double>(static_cast<double>(micro_batches), grid.ranks) / grid.ranks;
  const int group = grid.group_of(rank);
  const int size = grid.group_size(group);
  const double share =
      static_cast<double>(experts_on(config, grid, rank)) / static_cast<double>(copies_in(config, grid, group));
  const double group_tokens = static_cast<double>(load.tokens * size) * senders;
  const double top_k = static_cast<double>(config.moe.top_k);
  // A young router is uneven: in its first steps some rank gets about half as much again as its share.
  const double largest_share = std::min(1.0, 1.5 * share);
  load.received_slots = static_cast<std::int64_t>(group_tokens * top_k * largest_share);
  // A row comes once however many of its slots are here: 1 - P(none of them is).
  const double any = largest_share >= 1 ? 1.0 : 1 - std::pow(1 - largest_share, top_k);
  load.received_rows = static_cast<std::int64_t>(group_tokens * any);
  const std::int64_t bound = config.moe.max_received_rows;
  if (bound > 0 && load.received_rows > bound) {
    load.in_rounds = true;
    load.received_slots = load.received_slots * bound / load.received_rows;
    load.received_rows = bound;
  }
  return load;
}

std::int64_t parts_of_feed_forward(const ModelConfig& model) {
  return has_gate(model) ? 3 : 2;
}

// What a layer takes of a rank, in numbers of the activations' type.
struct LayerNumbers {
  std::int64_t saved = 0;    // from forward to backward, besides its input
  std::int64_t scratch = 0;  // at most
};

LayerNumbers attention_numbers(const ModelConfig& model, std::int64_t tokens, int threads) {
  const std::int64_t width = model.d_model;
  const std::int64_t head_dim = width / model.heads;
  const std::int64_t kv_width = model.kv_heads * head_dim;
  return {.saved = tokens * (5 * width + 2 * kv_width + model.heads + 4),  // norms, q, k, v, output, and their sum
          .scratch = tokens * (3 * width + 2 * kv_width) + threads * (model.seq_len * 8 * head_dim)};
}

LayerNumbers dense_numbers(const Config& config, std::int64_t tokens, int threads) {
  const ModelConfig& model = config.model;
  LayerNumbers layer = attention_numbers(model, tokens, threads);
  layer.saved += tokens * parts_of_feed_forward(model) * model.d_ff;
  layer.scratch = std::max(layer.scratch, tokens * (model.d_model + model.d_ff));
  return layer;
}

// experts: of the layer, on this rank.
LayerNumbers mixture_numbers(const Config& config, const Load& load, std::int64_t experts, int threads) {
  const ModelConfig& model = config.model;
  const MoeConfig& moe = config.moe;
  const std::int64_t width = model.d_model;
  const std::int64_t parts = parts_of_feed_forward(model);
  const bool hidden_again = config.train.recompute == Recompute::Experts;
  const std::int64_t around = load.received_slots * (2 * width + 3) + load.received_rows;  // experts' inputs, outputs
  const std::int64_t hidden = load.received_slots * parts * model.d_ff;
  const std::int64_t shared = load.tokens * moe.shared_experts * model.d_ff;

  LayerNumbers layer = attention_numbers(model, load.tokens, threads);
  layer.saved += load.tokens * (moe.experts + 2 * moe.top_k + 1);  // the router's
  std::int64_t experts_backward = load.received_slots * (2 * width + model.d_ff + 2);
  std::int64_t shared_backward = shared;
  if (load.in_rounds) {  // with the partials of a sender whose rows are spread over rounds
    experts_backward += around + hidden + experts * parts * width * model.d_ff;
  } else {
    layer.saved += around;
    (hidden_again ? experts_backward : layer.saved) += hidden;
  }
  (hidden_again ? shared_backward : layer.saved) += parts * shared;
  const std::int64_t backward =
      (load.tokens + load.received_rows) * width + std::max(experts_backward, shared_backward);
  layer.scratch = std::max(layer.scratch, backward);
  return layer;
}

}  // namespace

MemoryPlan plan_memory(const Config& config, const Grid& grid, Rank rank, int threads, Bytes program) {
  const ModelConfig& model = config.model;
  const MoeConfig& moe = config.moe;
  const bool exact = config.train.numerics == Numerics::Reproducible;
  const std::int64_t experts = experts_on(config, grid, rank);
  const std::int64_t activation = size_of(config.train.dtype);

  MemoryPlan plan;
  std::int64_t elements = 0;
  std::int64_t shares = 0;  // of elements: with ZeRO, what the others with copies of them leave to this rank
  const bool split = config.parallel.zero == 1;
  for (const ParameterSpec& spec : make_catalogue(config)) {
    // All experts are of one size: so many of them.
    if (!spec.owner.replicated() && spec.owner.expert >= experts) continue;
    elements += spec.shape.size();
    // An expert has a copy in each group and, on the average, its part of the others.
    const std::int64_t of = spec.owner.replicated() ? 1 : moe.experts;
    const std::int64_t copies =
        spec.owner.replicated() ? grid.ranks : grid.groups() * copies_in(config, grid, grid.group_of(rank));
    shares += split ? (spec.shape.size() * of + copies - 1) / copies : spec.shape.size();
    if (spec.shape.rank() != 2) continue;
    if (spec.name == "embed_tokens.weight" && !model.tie_embeddings) continue;  // rows are looked up, not multiplied
    const std::int64_t out = spec.shape[0];
    const std::int64_t in = spec.shape[1];
    if (config.device == "cpu") {
      plan.packed += f32 * (PackedMatrix::packed_size(in, out) + PackedMatrix::packed_size(out, in));
    } else if (config.train.dtype == DType::BF16) {
      plan.packed += activation * in * out;  // on a GPU products read this copy, or in fp32 the weight itself
    }
  }
  plan.weights = f32 * elements;
  plan.optimizer = 2 * f32 * shares;
  plan.gradients = (exact ? 8 : f32) * elements;

  const Load load = load_of(config, grid, rank);
  const std::int64_t tokens = load.tokens;
  const std::int64_t width = model.d_model;
  std::int64_t kept = tokens * (5 * width + 6);  // embedding, final norm, its gradient, the stream's; tokens and losses
  std::int64_t most_again = 0;                   // of a layer that is made again in its backward
  std::int64_t most_scratch = 0;
  for (std::int64_t l = 0; l < model.layers; ++l) {
    const LayerNumbers layer = is_moe_layer(config, l) ? mixture_numbers(config, load, experts, threads)
                                                       : dense_numbers(config, tokens, threads);
    kept += tokens * width;  // what it gives to the next one
    if (config.train.recompute == Recompute::Block) {
      most_again = std::max(most_again, layer.saved);
    } else {
      kept += layer.saved;
    }
    most_scratch = std::max(most_scratch, layer.scratch);
  }
  if (attention_by(config) == AttentionBy::Cudnn) {
    most_scratch += cudnn::backward_memory(attention_shape(config)).value() / activation;
  }
  const DeviceKind kind = config.device == "cpu" ? DeviceKind::Cpu : DeviceKind::Cuda;
  const std::int64_t loss_scratch =
      cross_entropy_scratch(tokens, model.vocab, width, config.train.numerics, kind, config.train.dtype).value();
  plan.activations = activation * (kept + most_again) + std::max(activation * most_scratch, loss_scratch);

  const int expert_ranks = grid.group_size(grid.group_of(rank));
  if (expert_ranks > 1) {
    // Rows that come back one a slot, and those that are packed for the others.
    const double away = 1.0 - 1.0 / expert_ranks;
    // Rows that go by way of a rank of their node lie on that one's GPU twice, as they come and as they go on.
    const int regions = kind == DeviceKind::Cuda && config.parallel.exchange == "hierarchical" ? 4 : 2;
    plan.buffers +=
        static_cast<std::int64_t>(away * static_cast<double>(activation * tokens * width * regions * moe.top_k));
  }
  if (grid.ranks > 1 && kind == DeviceKind::Cpu) {
    // A bucket of gradient sums; where they are scattered, MPI has two of its own beside it.
    plan.buffers += (split ? 3 : 1) * std::min<std::int64_t>(8 << 20, plan.gradients);
  } else if (grid.ranks > 1) {
    // What gradient sums bring to a GPU, and what is packed for the others.
    plan.buffers += 2 * std::min<std::int64_t>(32 << 20, plan.gradients);
  }
  if (grid.ranks > 1 && moe.rebalance_every > 0) {
    // While a layer's experts move, those that come stand beside those that leave: half of them, as it usually is.
    std::int64_t of_layer = 0;
    for (const ParameterSpec& spec : make_catalogue(config)) {
      if (spec.owner.layer >= 0 && spec.owner.layer < moe.every && spec.owner.expert < experts)
        of_layer += spec.shape.size();
    }
    plan.buffers += of_layer / 2 * (3 * f32 + (exact ? 8 : f32));
  }
  plan.program = program.value();
  return plan;
}

bool saves_beside(const Config& config) {
  return config.checkpoint.async && config.checkpoint.every > 0 && config.checkpoint.every < config.train.steps;
}

MemoryPlan plan_largest_memory(const Config& config, const Grid& grid, int threads, Bytes program) {
  // The first rank of a group has the most of its experts, and only the last group may differ in size from the first.
  const MemoryPlan first = plan_memory(config, grid, grid.first_rank(0), threads, program);
  const MemoryPlan last = plan_memory(config, grid, grid.first_rank(grid.groups() - 1), threads, program);
  MemoryPlan largest = last.total() > first.total() ? last : first;
  // Writing is spread evenly over the ranks.
  if (saves_beside(config)) largest.snapshot = 3 * f32 * count_parameters(config).total / grid.ranks;
  return largest;
}

}  // namespace switchyard
