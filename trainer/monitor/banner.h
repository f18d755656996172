// The startup banner: what runs where, how large it is, and how much memory it will take, before the first step.
#pragma once

#include "trainer/config/config.h"

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

struct Banner {
  std::string version;
  std::string run;  // the folder that is written to

  int ranks = 1;
  std::vector<std::string> hosts;  // one a node
  std::vector<int> ranks_on;       // [nodes]
  bool nodes_forced = false;       // by parallel.ranks_per_node
  int threads = 1;                 // of each rank
  int expert_size = 1;             // ranks that share the experts
  int expert_groups = 1;           // copies of every expert
  std::int64_t zero = 0;           // parallel.zero
  std::string device;              // "cpu"
  bool attention_by_cudnn = false;
  std::string exchange;            // "flat"
  ExchangeConfig wire;
  std::int64_t max_received_rows = 0;
  std::string why_exchange;  // why auto picked it; empty: the config said it
  std::string numerics;      // "reproducible"

  std::int64_t d_model = 0;
  std::int64_t layers = 0;
  std::int64_t mixture_layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t vocab = 0;
  std::int64_t seq_len = 0;
  std::int64_t experts = 0;
  std::int64_t top_k = 0;
  std::int64_t shared_experts = 0;
  double capacity_factor = 0;          // 0: dropless
  std::int64_t parameters = 0;         // of the whole model
  std::int64_t active_parameters = 0;  // that one token meets

  std::string data;  // the folder
  std::int64_t train_tokens = 0;
  std::int64_t steps = 0;
  std::int64_t first_step = 0;  // done before, in a resumed run
  std::int64_t global_batch = 0;
  std::int64_t micro_batch = 0;

  // What the busiest rank will hold, in bytes, in the order in which it is to be shown: weights, gradients, optimizer,
  // packed weights, activations, buffers, the program itself.
  struct Memory {
    std::string name;
    std::int64_t bytes = 0;
  };
  std::vector<Memory> memory;
  std::int64_t memory_available = 0;  // on the node with least for each of its ranks; 0: not known
};

std::int64_t predicted_memory(const Banner& banner);  // the sum
std::string format_banner(const Banner& banner, bool colour);

}  // namespace switchyard
