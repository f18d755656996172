// What a run is asked to do. Defaults are here; names, bounds and messages are in schema.cpp.
#pragma once

#include "comm/base/dtype.h"
#include "comm/base/numerics.h"

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

// What backward computes again instead of keeping it from forward: nothing, what experts have between input and output,
// or all of a layer but its input.
enum class Recompute { None, Experts, Block };
// Whose attention kernels on GPUs (trainer/model/attention_choice.h).
enum class AttentionChoice { Auto, Ours, Cudnn };

struct ModelConfig {
  std::int64_t vocab = 0;  // 0: what the tokenizer of data.train has
  std::int64_t d_model = 256;
  std::int64_t layers = 4;
  std::int64_t heads = 4;
  std::int64_t kv_heads = 0;  // 0: heads
  std::int64_t d_ff = 0;      // width of an expert and of a dense feed-forward; 0: 8/3 d_model, up to a multiple of 16
  std::int64_t seq_len = 256;
  double norm_eps = 1e-5;
  double rope_theta = 10000;
  bool tie_embeddings = true;
  std::string norm = "rms";           // rms, layer
  std::string activation = "swiglu";  // swiglu, gelu, relu
  double init_std = 0.02;             // matrices that write to the residual stream: divided by sqrt(2 layers)
};

struct MoeConfig {
  std::int64_t experts = 8;
  std::int64_t top_k = 2;
  double capacity_factor = 0;  // 0: dropless
  double aux_loss = 0.01;
  double z_loss = 0.001;
  std::int64_t every = 1;  // every n-th layer is a mixture: layers n-1, 2n-1, ... counted from 0; 0: none
  std::int64_t shared_experts = 0;
  std::string router = "topk";         // topk
  bool renormalise = true;             // where it is not said: top_k > 1
  std::int64_t replicas = 0;           // more copies than experts, a layer in each expert group
  std::int64_t rebalance_every = 0;    // steps between moves of experts to even out the ranks' work; 0: never
  std::int64_t max_received_rows = 0;  // of one layer and micro-batch at a time on a rank; 0: no bound
};

struct TrainConfig {
  std::int64_t steps = 1000;
  std::int64_t global_batch = 32;  // sequences
  std::int64_t micro_batch = 4;    // sequences; divides global_batch
  double lr = 1e-3;
  std::int64_t warmup_steps = 100;  // where it is not said: a tenth of the steps, but 100 at most
  double min_lr_ratio = 0.1;
  double weight_decay = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double grad_clip = 1.0;  // 0: none
  std::uint64_t seed = 1;
  Numerics numerics = Numerics::Reproducible;
  DType dtype = DType::F32;  // of activations and of what products read; F32 or BF16
  Recompute recompute = Recompute::None;
  AttentionChoice attention = AttentionChoice::Auto;
  bool graphs = false;  // CUDA graphs, of what the host has no say in
  std::int64_t eval_every = 0;      // 0: only at the end, where there is a validation split
  std::int64_t eval_sequences = 0;  // 0: all of the validation split
  double spike_zscore = 0;          // 0: no guard against loss spikes
  std::int64_t spike_window = 64;   // accepted losses that a new one is compared with
  std::int64_t max_bad_steps = 10;  // in a row, not finite or spikes, before the run stops
};

struct ParallelConfig {
  std::int64_t expert = 0;          // ranks an expert group spans; 0: as many as there are, up to the number of experts
  std::string exchange = "auto";    // auto, flat, hierarchical
  std::int64_t ranks_per_node = 0;  // 0: detect
  std::string device_transport = "auto";  // auto, nccl, mpi: how rows go from GPU to GPU
  std::int64_t zero = 0;  // ZeRO stage: 1 splits the optimizer's state over the ranks with the same parameters
};

// How rows lie on the wire: fp32, bf16, int8 (comm/exchange/wire.h).
struct ExchangeConfig {
  std::string wire = "fp32";
  std::string dispatch;  // "": wire, as for the next three; see of()
  std::string combine;
  std::string dispatch_backward;
  std::string combine_backward;
  std::int64_t chunks = 1;  // of a micro-batch's tokens: one travels while another is in its experts

  // What `way`, one of the four, comes to.
  const std::string& of(const std::string& way) const { return way.empty() ? wire : way; }
};

struct DataConfig {
  std::string train;      // the folder that prepare wrote, or a token shard in it
  std::string valid;      // default: that folder's held-out split
  std::string tokenizer;  // default: that folder's
};

struct CheckpointConfig {
  std::int64_t every = 0;      // 0: only at the end
  std::int64_t keep = 3;       // newest ones; 0: all
  std::int64_t pin_every = 0;  // those at multiples of so many steps are kept besides; 0: none
  bool async = true;           // written from a snapshot in memory while training goes on
};

struct LogConfig {
  std::int64_t every = 10;        // console lines
  std::int64_t digest_every = 1;  // 0: only at the end
};

struct WatchdogConfig {
  double factor = 20;         // a step may take so many times the usual; 0: as long as it likes
  double least_s = 60;        // but this long in any case
  double allowance_s = 1800;  // without a sign of life: first step, evaluations, loading, saving
  double silence_s = 20;      // of another host's network; 0: as long as it likes
};

struct Config {
  ModelConfig model;
  MoeConfig moe;
  TrainConfig train;
  ParallelConfig parallel;
  ExchangeConfig exchange;
  DataConfig data;
  CheckpointConfig checkpoint;
  LogConfig log;
  WatchdogConfig watchdog;
  std::string device = "cpu";
};

}  // namespace switchyard
