#include "trainer/config/schema.h"

#include "comm/base/ids.h"
#include "comm/exchange/wire.h"

#include <algorithm>
#include <cmath>

#include <fmt/core.h>
#include <fmt/ranges.h>

namespace switchyard {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
// No key's whole number may leave the range of a signed 64-bit integer, the only one that TOML has.
constexpr double unbounded = 0x1p63;
Bounds at_least(double low, double high = infinity) {
  return {.low = low, .high = high};
}
Bounds above(double low) {
  return {.low = low, .low_open = true};
}
Bounds from_to(double low, double high) {
  return {.low = low, .high = high};
}
Bounds from_below(double low, double high) {
  return {.low = low, .high = high, .high_open = true};
}

// Each number by itself stays where sense ends; what products of them may be is for check_sizes (check.cpp).
constexpr double most_width = 1 << 20;
constexpr double most_count = 1LL << 40;
constexpr double most_ranks = 1 << 20;

// Writes the lines of one section.
template <class Section>
class Keys {
 public:
  Keys(std::vector<ConfigKey>& keys, std::string name, Section Config::*section)
      : keys_(keys), name_(std::move(name)), section_(section) {}

  template <class Integer>
  void integer(const char* name, Integer Section::*member, Bounds bounds, const char* help) {
    bounds.high = std::min(bounds.high, unbounded);
    add<std::int64_t>(name, ConfigType::Integer, member, bounds, {}, help);
  }
  void real(const char* name, double Section::*member, Bounds bounds, const char* help) {
    add<double>(name, ConfigType::Real, member, bounds, {}, help);
  }
  void flag(const char* name, bool Section::*member, const char* help) {
    add<bool>(name, ConfigType::Flag, member, {}, {}, help);
  }
  void text(const char* name, std::string Section::*member, const char* help) {
    add<std::string>(name, ConfigType::Text, member, {}, {}, help);
  }
  void choice(const char* name, std::string Section::*member, std::vector<std::string> choices, const char* help) {
    add<std::string>(name, ConfigType::Choice, member, {}, std::move(choices), help);
  }
  // An enum whose values are named, in order, by `names`.
  template <class Enum>
  void choice(const char* name, Enum Section::*member, std::vector<std::string> names, const char* help) {
    const auto section = section_;
    keys_.push_back({name_,
                     name,
                     ConfigType::Choice,
                     {},
                     names,
                     help,
                     [=](const Config& config) { return names[static_cast<std::size_t>(config.*section.*member)]; },
                     [=](Config& config, const ConfigValue& value) {
                       const auto found = std::find(names.begin(), names.end(), std::get<std::string>(value));
                       config.*section.*member = static_cast<Enum>(found - names.begin());
                     }});
  }

 private:
  template <class Value, class Member>
  void add(const char* name, ConfigType type, Member Section::*member, Bounds bounds, std::vector<std::string> choices,
           const char* help) {
    const auto section = section_;
    keys_.push_back({name_, name, type, bounds, std::move(choices), help,
                     [=](const Config& config) { return ConfigValue(static_cast<Value>(config.*section.*member)); },
                     [=](Config& config, const ConfigValue& value) {
                       config.*section.*member = static_cast<Member>(std::get<Value>(value));
                     }});
  }

  std::vector<ConfigKey>& keys_;
  std::string name_;
  Section Config::*section_;
};

void add_device(std::vector<ConfigKey>& keys) {
  keys.push_back({"",
                  "device",
                  ConfigType::Text,
                  {},
                  {},
                  "what computes: cpu, cuda, or cuda:N",
                  [](const Config& config) { return config.device; },
                  [](Config& config, const ConfigValue& value) { config.device = std::get<std::string>(value); }});
}

std::vector<ConfigKey> make_keys() {
  std::vector<ConfigKey> keys;
  add_device(keys);

  Keys model(keys, "model", &Config::model);
  using M = ModelConfig;
  model.integer("vocab", &M::vocab, from_to(0, 1 << 30), "tokens in the vocabulary; 0: as many as the tokenizer has");
  model.integer("d_model", &M::d_model, at_least(1, most_width), "width of a token's vector");
  model.integer("layers", &M::layers, at_least(1, 1 << 16), "transformer layers");
  model.integer("heads", &M::heads, at_least(1, most_width), "attention heads; they divide d_model");
  model.integer("kv_heads", &M::kv_heads, at_least(0, most_width), "heads of keys and values (GQA); 0: heads");
  model.integer("d_ff", &M::d_ff, at_least(0, most_width),
                "inner width of an expert; 0: 8/3 d_model, up to a multiple of 16");
  model.integer("seq_len", &M::seq_len, at_least(1, most_width), "tokens in a sequence");
  model.real("norm_eps", &M::norm_eps, above(0), "added to the mean square in norms");
  model.real("rope_theta", &M::rope_theta, above(0), "base of the rotary position angles");
  model.flag("tie_embeddings", &M::tie_embeddings, "one matrix for the embedding and the output");
  model.choice("norm", &M::norm, {"rms", "layer"}, "RMSNorm or LayerNorm");
  model.choice("activation", &M::activation, {"swiglu", "gelu", "relu"}, "of experts and dense feed-forward layers");
  model.real("init_std", &M::init_std, above(0), "standard deviation of initial matrices");

  Keys moe(keys, "moe", &Config::moe);
  using X = MoeConfig;
  moe.integer("experts", &X::experts, at_least(1, 1 << 16), "experts in a mixture layer");
  moe.integer("top_k", &X::top_k, at_least(1, 1 << 16), "experts that a token goes to");
  moe.real("capacity_factor", &X::capacity_factor, from_to(0, 1e6),
           "room of an expert, in equal shares of the slots; 0: dropless");
  moe.real("aux_loss", &X::aux_loss, at_least(0), "weight of the balance loss");
  moe.real("z_loss", &X::z_loss, at_least(0), "weight of the router's z-loss");
  moe.integer("every", &X::every, at_least(0), "every n-th layer is a mixture; 0: none is");
  moe.integer("shared_experts", &X::shared_experts, at_least(0, 1 << 10), "experts that every token goes to besides");
  moe.choice("router", &X::router, {"topk"}, "how tokens choose experts");
  moe.flag("renormalise", &X::renormalise, "gate weights of a token's experts sum to 1; unless said, where top_k > 1");
  moe.integer(
      "replicas", &X::replicas, at_least(0, 1 << 20),
      "more copies, of the experts that are chosen most, on other ranks of an expert group, as far as they have room");
  moe.integer("rebalance_every", &X::rebalance_every, at_least(0, most_count),
              "steps after which experts move between ranks, so that each has the same work; 0: they stay");
  moe.integer("max_received_rows", &X::max_received_rows, at_least(0, most_count),
              "rows that a rank takes in at a time, the others following in more rounds; 0: no bound");

  Keys train(keys, "train", &Config::train);
  using T = TrainConfig;
  train.integer("steps", &T::steps, at_least(1, most_count), "optimizer steps in all");
  train.integer("global_batch", &T::global_batch, at_least(1, 1 << 30), "sequences in a step, on all ranks together");
  train.integer("micro_batch", &T::micro_batch, at_least(1, 1 << 20),
                "sequences that one forward handles; divides global_batch");
  train.real("lr", &T::lr, at_least(0), "highest learning rate");
  train.integer("warmup_steps", &T::warmup_steps, at_least(0, most_count),
                "steps in which the rate rises from 0; unless said, a tenth of steps, 100 at most");
  train.real("min_lr_ratio", &T::min_lr_ratio, from_to(0, 1), "last learning rate, in parts of lr (cosine)");
  train.real("weight_decay", &T::weight_decay, at_least(0), "decoupled decay of matrices");
  train.real("beta1", &T::beta1, from_below(0, 1), "AdamW: decay of the first moment");
  train.real("beta2", &T::beta2, from_below(0, 1), "AdamW: decay of the second moment");
  train.real("eps", &T::eps, above(0), "AdamW: added to the root of the second moment");
  train.real("grad_clip", &T::grad_clip, at_least(0), "largest norm of all gradients together; 0: no limit");
  train.integer("seed", &T::seed, at_least(0), "of initial weights and of the order of the data");
  train.choice("numerics", &T::numerics, {"reproducible", "fast"}, "one result for every layout, or sums in any order");
  static_assert(static_cast<int>(DType::F32) == 0 && static_cast<int>(DType::BF16) == 1);
  train.choice("dtype", &T::dtype, {"fp32", "bf16"},
               "of activations; bf16 on a GPU only, with fp32 weights, sums, norms, router and loss");
  static_assert(static_cast<int>(Recompute::None) == 0 && static_cast<int>(Recompute::Block) == 2);
  train.choice("recompute", &T::recompute, {"none", "experts", "block"},
               "computed again in backward instead of kept: what experts hide, or a layer but for its input; less "
               "memory, more time, the same bits");
  static_assert(static_cast<int>(AttentionChoice::Auto) == 0 && static_cast<int>(AttentionChoice::Cudnn) == 2);
  train.choice("attention", &T::attention, {"auto", "ours", "cudnn"},
               "whose attention on GPUs; auto: cuDNN's in bf16 with fast numerics, where it is installed and takes the "
               "shape");
  train.flag("graphs", &T::graphs,
             "on a GPU, launch kernels as CUDA graphs: a micro-batch's as one where a GPU has all experts and drops no "
             "slot, else those before and after each mixture");
  train.integer("eval_every", &T::eval_every, at_least(0, most_count), "steps between evaluations; 0: only at the end");
  train.integer("eval_sequences", &T::eval_sequences, at_least(0, most_count),
                "sequences of an evaluation; 0: the whole split");
  train.real("spike_zscore", &T::spike_zscore, at_least(0),
             "leave out updates whose loss is so many deviations above the last ones; 0: none");
  train.integer("spike_window", &T::spike_window, at_least(2, 1 << 20), "losses that a new one is compared with");
  train.integer("max_bad_steps", &T::max_bad_steps, at_least(1, most_count),
                "updates left out in a row (not finite, or spikes) after which the run stops");

  Keys parallel(keys, "parallel", &Config::parallel);
  using P = ParallelConfig;
  parallel.integer("expert", &P::expert, at_least(0, most_ranks),
                   "ranks that share the experts; 0: all, up to one an expert");
  parallel.choice("exchange", &P::exchange, {"auto", "flat", "hierarchical"},
                  "how rows travel to experts: straight, or once to a node and on from there; auto: by what is faster");
  parallel.choice("device_transport", &P::device_transport, {"auto", "nccl", "mpi"},
                  "how rows travel between GPUs; auto: NCCL where each rank has its own GPU, else by the host and MPI");
  parallel.integer("ranks_per_node", &P::ranks_per_node, at_least(0, most_ranks),
                   "take so many ranks for a node; 0: detect");
  parallel.integer("zero", &P::zero, from_to(0, 1),
                   "ZeRO stage: 1 splits the optimizer's state over ranks; 0: each has all of it");

  Keys exchange(keys, "exchange", &Config::exchange);
  using E = ExchangeConfig;
  std::vector<std::string> wires = wire_names();
  exchange.choice("wire", &E::wire, wires, "how rows lie on the wire, wherever the next four keys do not say it");
  wires.insert(wires.begin(), "");
  exchange.choice("dispatch", &E::dispatch, wires, "tokens on their way to experts; \"\": as wire");
  exchange.choice("combine", &E::combine, wires, "what experts made of them, on its way back; \"\": as wire");
  exchange.choice("dispatch_backward", &E::dispatch_backward, wires,
                  "gradients that come back from experts, in the backward of dispatch; \"\": as wire");
  exchange.choice("combine_backward", &E::combine_backward, wires,
                  "gradients on their way to experts, in the backward of combine; \"\": as wire");
  exchange.integer("chunks", &E::chunks, from_to(1, 64),
                   "pieces of a micro-batch's tokens: one travels while another is in its experts");

  Keys data(keys, "data", &Config::data);
  data.text("train", &DataConfig::train, "folder that `switchyard prepare` wrote, or a file in it");
  data.text("valid", &DataConfig::valid, "the same for validation; default: the split held out in data.train");
  data.text("tokenizer", &DataConfig::tokenizer,
            "folder of the tokenizer, or its file; default: the one in data.train");

  Keys checkpoint(keys, "checkpoint", &Config::checkpoint);
  checkpoint.integer("every", &CheckpointConfig::every, at_least(0, most_count),
                     "steps between checkpoints; 0: only at the end");
  checkpoint.integer("keep", &CheckpointConfig::keep, at_least(0, most_count),
                     "newest checkpoints that are kept; 0: all");
  checkpoint.integer("pin_every", &CheckpointConfig::pin_every, at_least(0, most_count),
                     "checkpoints at multiples of so many steps are kept besides; 0: none");
  checkpoint.flag("async", &CheckpointConfig::async,
                  "write from a snapshot in memory while training goes on; false: no memory for it, and steps wait");

  Keys log(keys, "log", &Config::log);
  log.integer("every", &LogConfig::every, at_least(1, most_count), "steps between lines of the log");
  log.integer("digest_every", &LogConfig::digest_every, at_least(0, most_count),
              "steps between digests; 0: only at the end");

  Keys watchdog(keys, "watchdog", &Config::watchdog);
  using W = WatchdogConfig;
  watchdog.real("factor", &W::factor, at_least(0),
                "a step that takes so many times the usual ends the job, after each rank has said where it stands; "
                "0: never");
  watchdog.real("least_s", &W::least_s, above(0), "seconds that a step may take in any case");
  watchdog.real("allowance_s", &W::allowance_s, above(0),
                "seconds without a sign of life, for the first step, evaluations, loading and saving; to be longer "
                "than a whole load or save, which the ranks that are done wait for");
  watchdog.real(
      "silence_s", &W::silence_s, at_least(0),
      "seconds in which nothing, not even an acknowledgement, comes from another host over TCP, until the job "
      "ends and names that host (4 at least); 0: never");
  return keys;
}

std::string listed(std::vector<std::string> choices) {
  for (std::string& choice : choices) {
    if (choice.empty()) choice = "\"\"";
  }
  return fmt::format("{}", fmt::join(choices, ", "));
}

}  // namespace

bool Bounds::hold(double value) const {
  if (!std::isfinite(value)) return false;
  return (low_open ? value > low : value >= low) && (high_open ? value < high : value <= high);
}

std::string Bounds::describe() const {
  if (high >= unbounded) return fmt::format("{} {}", low_open ? "above" : "at least", low);
  return fmt::format("from {} to {}{}", low, high_open ? "below " : "", high);
}

std::string ConfigKey::wanted() const {
  switch (type) {
    case ConfigType::Integer:
      return "a whole number " + bounds.describe();
    case ConfigType::Real:
      return "a number " + bounds.describe();
    case ConfigType::Flag:
      return "true or false";
    case ConfigType::Text:
      return "a text in quotes";
    case ConfigType::Choice:
      return choices.size() == 1 ? choices[0] : fmt::format("one of {}", listed(choices));
  }
  return "";
}

std::span<const ConfigKey> config_keys() {
  static const std::vector<ConfigKey> keys = make_keys();
  return keys;
}

const ConfigKey* find_config_key(std::string_view path) {
  for (const ConfigKey& key : config_keys()) {
    if (key.path() == path) return &key;
  }
  return nullptr;
}

const std::vector<std::string>& config_sections() {
  static const std::vector<std::string> sections = [] {
    std::vector<std::string> names;
    for (const ConfigKey& key : config_keys()) {
      if (!key.section.empty() && (names.empty() || names.back() != key.section)) names.push_back(key.section);
    }
    return names;
  }();
  return sections;
}

std::vector<std::string> config_key_names(std::string_view section) {
  std::vector<std::string> names;
  for (const ConfigKey& key : config_keys()) {
    if (key.section == section) names.push_back(key.name);
  }
  return names;
}

}  // namespace switchyard
