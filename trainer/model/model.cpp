#include "trainer/model/model.h"

#include "comm/device/host_view.h"
#include "comm/group/environment.h"
#include "comm/group/fault_point.h"
#include "layers/attention/rope.h"
#include "layers/ops/cross_entropy.h"
#include "layers/ops/embedding.h"
#include "trainer/model/attention_choice.h"
#include "trainer/model/catalogue.h"

#include <optional>
#include <utility>

#include <fmt/core.h>

namespace switchyard {
namespace {

Activation activation_of(const ModelConfig& model) {
  if (model.activation == "gelu") return Activation::GELU;
  if (model.activation == "relu") return Activation::ReLU;
  return Activation::SwiGLU;
}

NormLayer make_norm(const ParameterList& parameters, const ModelConfig& model, const std::string& name) {
  Parameter* bias = model.norm == "layer" ? &parameters.at(name + ".bias") : nullptr;
  return {parameters.at(name + ".weight"), bias, static_cast<float>(model.norm_eps)};
}

FeedForward make_dense(const ParameterList& parameters, const ModelConfig& model, const std::string& prefix) {
  FeedForwardWeights weights;
  if (has_gate(model)) weights.gate = &parameters.at(prefix + ".gate_proj.weight");
  weights.up = &parameters.at(prefix + ".up_proj.weight");
  weights.down = &parameters.at(prefix + ".down_proj.weight");
  return {std::span(&weights, 1), activation_of(model)};
}

// The experts that a placement gives this rank of the group.
Experts make_experts(const ParameterList& parameters, const Config& config, const std::string& layer,
                     const Placement& placement, const Group& group) {
  const std::vector<std::int32_t>& local = placement.local(group.rank());
  std::vector<FeedForwardWeights> experts;
  for (const std::int32_t e : local) {
    const std::string expert = fmt::format("{}experts.{}.", layer, e);
    FeedForwardWeights weights;
    if (has_gate(config.model)) weights.gate = &parameters.at(expert + "w_gate");
    weights.up = &parameters.at(expert + "w_up");
    weights.down = &parameters.at(expert + "w_down");
    experts.push_back(weights);
  }
  return {local, experts, activation_of(config.model)};
}

MoeLayer make_moe(const ParameterList& parameters, const Config& config, const std::string& layer, ExchangeLane& lane,
                  DeviceTransport* device, const Placement& placement) {
  const RouterSettings settings{.experts = config.moe.experts,
                                .top_k = config.moe.top_k,
                                .renormalise = config.moe.renormalise,
                                .aux_loss = config.moe.aux_loss,
                                .z_loss = config.moe.z_loss};
  std::optional<FeedForward> shared;
  if (config.moe.shared_experts > 0) shared = make_dense(parameters, config.model, layer + "shared_experts");
  return {Router(parameters.at(layer + "router.weight"), settings),
          make_experts(parameters, config, layer, placement, lane.group()),
          std::move(shared),
          placement,
          lane,
          device,
          config.train.numerics,
          /*keep_hidden=*/config.train.recompute != Recompute::Experts};
}

std::string prefix_of(std::int64_t layer) {
  return fmt::format("layers.{}.", layer);
}

// placement: of a mixture layer.
Block make_block(const ParameterList& parameters, const Config& config, std::int64_t index, ExchangeLane& lane,
                 DeviceTransport* device, const Placement* placement) {
  const std::string layer = prefix_of(index);
  const std::string attention = layer + "self_attn.";
  std::variant<FeedForward, MoeLayer> feed =
      placement != nullptr
          ? std::variant<FeedForward, MoeLayer>(make_moe(parameters, config, layer, lane, device, *placement))
          : std::variant<FeedForward, MoeLayer>(make_dense(parameters, config.model, layer + "mlp"));
  return {make_norm(parameters, config.model, layer + "input_layernorm"),
          AttentionLayer(parameters.at(attention + "q_proj.weight"), parameters.at(attention + "k_proj.weight"),
                         parameters.at(attention + "v_proj.weight"), parameters.at(attention + "o_proj.weight"),
                         config.model.heads, config.model.kv_heads, attention_by(config)),
          make_norm(parameters, config.model, layer + "post_attention_layernorm"), std::move(feed)};
}

Block::Attended run_at_once(Block::Part, const Tensor&, const Tensor&, const std::function<Block::Attended()>& work) {
  return work();
}

// How many mixture layers come before this one.
std::int64_t mixtures_up_to(const Config& config, std::int64_t layer) {
  return layer / config.moe.every;
}

}  // namespace

Model::Model(const Config& config, Device& device, ExchangeLane& lane)
    : Model(config, device, lane,
            std::vector(usize(config.model.layers), Placement(config.moe.experts, lane.group().size()))) {}

Model::Model(const Config& config, Device& device, ExchangeLane& lane, std::span<const Placement> placements)
    : config_(config),
      device_(&device),
      lane_(&lane),
      device_transport_(make_device_transport(lane.group(), device, config.parallel.device_transport)),
      parameters_(
          device, config.train.numerics, make_catalogue(config),
          [&](const ParameterSpec& spec) {
            if (spec.owner.replicated()) return true;
            const auto& local = placements[usize(mixtures_up_to(config, spec.owner.layer))].local(lane.group().rank());
            return std::binary_search(local.begin(), local.end(), spec.owner.expert);
          },
          config.train.seed, config.train.global_batch / config.train.micro_batch, dtype()),
      final_norm_(make_norm(parameters_, config.model, "norm")),
      head_(parameters_.at(config.model.tie_embeddings ? "embed_tokens.weight" : "lm_head.weight")),
      activations_(device),
      scratch_(device),
      mixture_activations_(device),
      mixture_scratch_(device) {
  if (config.train.graphs && device.kind() != DeviceKind::Cpu) parts_.emplace(activations_, scratch_);
  for (std::int64_t l = 0; l < config.model.layers; ++l) {
    const Placement* const placement = is_moe_layer(config, l) ? &placements[moe_layers_.size()] : nullptr;
    blocks_.push_back(make_block(parameters_, config, l, lane, device_transport_.get(), placement));
    if (placement != nullptr) moe_layers_.push_back(l);
  }
  const std::int64_t head_dim = config.model.d_model / config.model.heads;
  rope_memory_ = Buffer(device, Bytes(config.model.seq_len * head_dim * size_of(DType::F32)));
  rope_table_ = Tensor(rope_memory_.data(), DType::F32, {config.model.seq_len, head_dim}, device);
  rope_table(0, config.model.seq_len, config.model.rope_theta, rope_table_);
}

void Model::place(std::size_t mixture, const Placement& placement) {
  const std::int64_t layer = moe_layers_[mixture];
  captured_.reset();
  if (parts_) parts_->forget();
  blocks_[usize(layer)].moe()->place(placement,
                                     make_experts(parameters_, config_, prefix_of(layer), placement, lane_->group()));
}

void Model::count_pairs(std::size_t mixture, std::span<std::int64_t> pairs) {
  blocks_[usize(moe_layers_[mixture])].moe()->count_pairs(pairs);
}

Bytes Model::activations_peak() const {
  std::int64_t peak = 0;
  for (const Arena* arena : {&activations_, &scratch_, &mixture_activations_, &mixture_scratch_}) {
    peak += arena->peak().value();
  }
  return Bytes(peak);
}

Block::Room Model::room() {
  return {activations_, scratch_, parts_ ? mixture_activations_ : activations_, parts_ ? mixture_scratch_ : scratch_};
}

Block::Runner Model::runner(std::size_t layer, std::int64_t sequences) {
  if (!parts_ || !in_parts_ || sequences == 0 || device_->record() != nullptr) return run_at_once;
  return [this, layer](Block::Part part, const Tensor& on, const Tensor& beside,
                       const std::function<Block::Attended()>& work) {
    blocks_[layer].pack_attention();
    return parts_->run(layer, part, on, beside, work);
  };
}

MicroBatchReport Model::train(const MicroBatch& batch) {
  const ArenaScope kept(activations_), mixture_kept(mixture_activations_);
  const ArenaScope scratch(scratch_), mixture_scratch(mixture_scratch_);
  check(batch);
  if (has_graph(batch.sequences)) return launch_graph(batch);
  const std::int64_t graphs_before = parts_ ? parts_->launches() : 0;
  Pass pass;
  pass.sequences = batch.sequences;
  pass.tokens = copy_to_device(batch.tokens);
  pass.targets = copy_to_device(batch.targets);
  forward(pass);
  backward(pass);
  watch_memory(pass);
  MicroBatchReport result = report(pass);
  if (parts_) result.graphs = parts_->launches() - graphs_before;
  return result;
}

void Model::forward(Pass& pass) {
  set_progress(progress_step(), "forward");
  pass.layers.resize(blocks_.size());
  Tensor stream = embed(pass.tokens);
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    set_progress_layer(isize(l));
    Tensor next = allocate(activations_, stream.shape(), stream.dtype());
    if (const MoeLayer* moe = blocks_[l].moe()) moe->make_room_for_report(activations_, pass.layers[l].moe);
    std::optional<ArenaScope> forgotten, mixture_forgotten;
    if (config_.train.recompute == Recompute::Block) {
      forgotten.emplace(activations_);
      mixture_forgotten.emplace(mixture_activations_);
    }
    blocks_[l].forward(stream, pass.sequences, config_.moe.capacity_factor, rope_table_, room(),
                       runner(l, pass.sequences), pass.layers[l], next);
    stream = next;
  }
  set_progress_layer(-1);
  Tensor hidden = allocate(activations_, stream.shape(), stream.dtype());
  final_norm_.forward(stream, activations_, pass.norm, hidden);

  const std::int64_t tokens = pass.tokens.size();
  pass.losses = allocate(activations_, {tokens});
  pass.dhidden = allocate(activations_, stream.shape(), stream.dtype());
  const float scale = tokens == 0 ? 0.0F : 1.0F / static_cast<float>(tokens);
  cross_entropy_and_backward(hidden, head_.forward(), head_.backward(), pass.targets, scale, scratch_, pass.losses,
                             pass.dhidden, head_.gradient());
}

MicroBatchReport Model::report(const Pass& pass) const {
  MicroBatchReport report;
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    const MoeLayer* const moe = blocks_[l].moe();
    if (moe == nullptr) continue;
    report.moe.push_back(moe->report(pass.layers[l].moe));
    report.aux_loss += report.moe.back().losses.aux;
    report.z_loss += report.moe.back().losses.z;
  }
  const std::int64_t tokens = pass.losses.size();
  const HostView<float> loss_of(*device_, pass.losses.f32(), tokens);
  for (std::int64_t t = 0; t < tokens; ++t) report.loss += static_cast<double>(loss_of[t]);
  if (tokens > 0) report.loss /= static_cast<double>(tokens);
  if (take_planted_spike()) report.loss += 1000;
  return report;
}

void Model::backward(Pass& pass) {
  set_progress(progress_step(), "backward");
  Tensor dstream = allocate(activations_, pass.dhidden.shape(), pass.dhidden.dtype());
  final_norm_.backward(pass.dhidden, pass.norm, dstream, /*add_to_dx=*/false);
  for (std::size_t l = blocks_.size(); l-- > 0;) {
    set_progress_layer(isize(l));
    const ArenaScope layer(activations_), mixture(mixture_activations_);
    const Block::Runner run = runner(l, pass.sequences);
    if (config_.train.recompute == Recompute::Block) {
      set_progress(progress_step(), "forward again");
      blocks_[l].forward_again(pass.sequences, rope_table_, room(), run, pass.layers[l]);
      set_progress(progress_step(), "backward");
    }
    blocks_[l].backward(pass.sequences, rope_table_, room(), run, pass.layers[l], dstream);
  }
  set_progress_layer(-1);
  embedding_backward(dstream, pass.tokens, parameters_.at("embed_tokens.weight").gradient());
}

void Model::evaluate(const MicroBatch& batch, std::span<float> losses) {
  const ArenaScope kept(activations_);
  const ArenaScope scratch(scratch_);
  check(batch);
  const Tensor hidden = infer(batch, /*capacity_factor=*/0);
  Tensor nll = allocate(activations_, {isize(losses.size())});
  cross_entropy(hidden, head_.forward(), copy_to_device(batch.targets), scratch_, nll);
  device_->copy_to_host(losses.data(), nll.raw(), Bytes(isize(losses.size_bytes())), device_->stream());
}

void Model::logits(const MicroBatch& batch, std::span<float> logits) {
  const ArenaScope kept(activations_);
  const ArenaScope scratch(scratch_);
  check(batch);
  const Tensor hidden = infer(batch, config_.moe.capacity_factor);
  Tensor out = allocate(activations_, {hidden.dim(0), config_.model.vocab});
  gemm(hidden, head_.forward(), out);
  device_->copy_to_host(logits.data(), out.raw(), Bytes(isize(logits.size_bytes())), device_->stream());
}

void Model::check(const MicroBatch& batch) const {
  const std::int64_t tokens = isize(batch.tokens.size());
  require(tokens == batch.sequences * config_.model.seq_len, "a micro-batch of {} sequences has {} tokens, wanted {}",
          batch.sequences, tokens, batch.sequences * config_.model.seq_len);
  check_tokens(batch.tokens, config_.model.vocab);
  check_targets(batch.targets, config_.model.vocab);
}

Tensor Model::embed(const Tensor& tokens) {
  Tensor stream = allocate(activations_, {tokens.size(), config_.model.d_model}, dtype());
  embedding(tokens, parameters_.at("embed_tokens.weight").value(), stream);
  return stream;
}

Tensor Model::infer(const MicroBatch& batch, double capacity_factor) {
  Tensor stream = embed(copy_to_device(batch.tokens));
  Tensor next = allocate(activations_, stream.shape(), stream.dtype());
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    set_progress_layer(isize(l));
    const ArenaScope layer(activations_), mixture(mixture_activations_);
    Block::Saved saved;
    blocks_[l].forward(stream, batch.sequences, capacity_factor, rope_table_, room(), run_at_once, saved, next);
    std::swap(stream, next);
  }
  set_progress_layer(-1);
  NormLayer::Saved saved;
  final_norm_.forward(stream, activations_, saved, next);
  return next;
}

Tensor Model::copy_to_device(std::span<const std::int32_t> values) {
  Tensor tensor = allocate(activations_, {isize(values.size())}, DType::I32);
  device_->copy_from_host(tensor.raw(), values.data(), Bytes(isize(values.size_bytes())), device_->stream());
  return tensor;
}

void Model::decode(std::span<const std::int32_t> tokens, std::int64_t past, std::span<float> logits) {
  require(lane_->group().size() == 1, "generation runs on one rank; this group has {}", lane_->group().size());
  const ModelConfig& model = config_.model;
  const std::int64_t count = isize(tokens.size());
  require(past + count <= model.seq_len, "{} tokens after {} are beyond the model's {} positions", count, past,
          model.seq_len);
  if (caches_.empty()) {
    const std::int64_t width = model.kv_heads * (model.d_model / model.heads);
    const std::int64_t cache_size = model.seq_len * width;
    cache_memory_ = Buffer(*device_, Bytes(2 * model.layers * cache_size * size_of(dtype())));
    auto* const memory = static_cast<std::byte*>(cache_memory_.data());
    const std::int64_t cache_bytes = cache_size * size_of(dtype());
    for (std::int64_t l = 0; l < model.layers; ++l) {
      const Shape shape{model.seq_len, width};
      caches_.push_back({Tensor(memory + 2 * l * cache_bytes, dtype(), shape, *device_),
                         Tensor(memory + (2 * l + 1) * cache_bytes, dtype(), shape, *device_)});
    }
  }
  const ArenaScope kept(activations_);
  const ArenaScope scratch(scratch_);
  Tensor stream = allocate(activations_, {count, model.d_model}, dtype());
  check_tokens(tokens, model.vocab);
  embedding(copy_to_device(tokens), parameters_.at("embed_tokens.weight").value(), stream);
  const Tensor rope_rows = rope_table_.slice(past, count);
  for (std::size_t l = 0; l < blocks_.size(); ++l) blocks_[l].decode(past, rope_rows, caches_[l], scratch_, stream);
  const Tensor last = stream.slice(count - 1, 1);
  NormLayer::Saved saved_norm;
  Tensor hidden = allocate(activations_, last.shape(), last.dtype());
  final_norm_.forward(last, activations_, saved_norm, hidden);
  Tensor out = allocate(activations_, {1, model.vocab});
  gemm(hidden, head_.forward(), out);
  device_->copy_to_host(logits.data(), out.raw(), Bytes(isize(logits.size_bytes())), device_->stream());
}

}  // namespace switchyard
