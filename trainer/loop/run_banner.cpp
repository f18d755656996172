#include "trainer/loop/run_banner.h"

#include "trainer/loop/memory_plan.h"
#include "trainer/model/attention_choice.h"
#include "trainer/model/catalogue.h"
#include "trainer/monitor/memory.h"

#include <omp.h>

namespace switchyard {

Banner make_banner(const Config& config, Layout& layout, const RunData& data, const std::filesystem::path& out,
                   std::int64_t first_step) {
  const ParameterCounts counts = count_parameters(config);
  const int threads = omp_get_max_threads();
  Banner banner;
  banner.version = SWITCHYARD_VERSION;
  banner.run = out.string();
  banner.ranks = layout.world().size();
  banner.hosts = layout.nodes().hosts;
  for (const auto& ranks : layout.nodes().ranks_on) banner.ranks_on.push_back(static_cast<int>(ranks.size()));
  banner.nodes_forced = layout.nodes().forced;
  banner.threads = threads;
  banner.expert_size = layout.grid().expert_size;
  banner.expert_groups = layout.grid().groups();
  banner.zero = config.parallel.zero;
  banner.device = config.device;
  banner.attention_by_cudnn = attention_by(config) == AttentionBy::Cudnn;
  banner.exchange = layout.lane().name();
  banner.why_exchange = layout.why_exchange();
  banner.wire = config.exchange;
  banner.max_received_rows = config.moe.max_received_rows;
  banner.numerics = name_of(config.train.numerics);
  banner.d_model = config.model.d_model;
  banner.layers = config.model.layers;
  for (std::int64_t l = 0; l < config.model.layers; ++l) banner.mixture_layers += is_moe_layer(config, l) ? 1 : 0;
  banner.heads = config.model.heads;
  banner.kv_heads = config.model.kv_heads;
  banner.vocab = config.model.vocab;
  banner.seq_len = config.model.seq_len;
  banner.experts = config.moe.experts;
  banner.top_k = config.moe.top_k;
  banner.shared_experts = config.moe.shared_experts;
  banner.capacity_factor = config.moe.capacity_factor;
  banner.parameters = counts.total;
  banner.active_parameters = counts.active;
  banner.data = config.data.train;
  banner.train_tokens = data.train->tokens();
  banner.steps = config.train.steps;
  banner.first_step = first_step;
  banner.global_batch = config.train.global_batch;
  banner.micro_batch = config.train.micro_batch;
  Config decided = config;  // where it says "auto"
  decided.parallel.exchange = layout.lane().name();
  const MemoryPlan memory = plan_largest_memory(decided, layout.grid(), threads, Bytes(peak_memory()));
  banner.memory = {{"weights", memory.weights},         {"gradients", memory.gradients},
                   {"optimizer", memory.optimizer},     {"packed weights", memory.packed},
                   {"activations", memory.activations}, {"buffers", memory.buffers},
                   {"snapshot", memory.snapshot},       {"program", memory.program}};
  banner.memory_available = available_memory();
  return banner;
}

}  // namespace switchyard
