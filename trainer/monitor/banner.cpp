#include "trainer/monitor/banner.h"

#include "comm/base/ids.h"
#include "trainer/monitor/memory.h"
#include "trainer/monitor/progress.h"

#include <algorithm>
#include <array>
#include <numeric>

#include <fmt/core.h>
#include <fmt/ranges.h>

namespace switchyard {
namespace {

std::string plural(std::int64_t count, const char* one) {
  return fmt::format("{} {}{}", count, one, count == 1 ? "" : "s");
}

// "4 ranks on 2 nodes (n1: 2, n2: 2)"; long lists are cut.
std::string places(const Banner& banner) {
  constexpr std::size_t shown = 8;
  std::vector<std::string> hosts;
  for (std::size_t i = 0; i < banner.hosts.size() && i < shown; ++i) {
    hosts.push_back(i < banner.ranks_on.size() ? fmt::format("{}: {}", banner.hosts[i], banner.ranks_on[i])
                                               : banner.hosts[i]);
  }
  if (banner.hosts.size() > shown) hosts.push_back(fmt::format("and {} more", banner.hosts.size() - shown));
  return fmt::format("{} on {}{} ({}), {} each", plural(banner.ranks, "rank"),
                     plural(isize(banner.hosts.size()), "node"), banner.nodes_forced ? " by config" : "",
                     fmt::join(hosts, ", "), plural(banner.threads, "thread"));
}

std::string model(const Banner& banner) {
  const std::string heads = banner.kv_heads == banner.heads
                                ? plural(banner.heads, "head")
                                : fmt::format("{} heads over {}", banner.heads, banner.kv_heads);
  return fmt::format("{} of width {}, {}, {} tokens of a vocabulary of {}", plural(banner.layers, "layer"),
                     banner.d_model, heads, banner.seq_len, banner.vocab);
}

std::string mixture(const Banner& banner) {
  if (banner.mixture_layers == 0) return "none: a dense model";
  std::string text = fmt::format("{} with {}, top {}", plural(banner.mixture_layers, "layer"),
                                 plural(banner.experts, "expert"), banner.top_k);
  if (banner.shared_experts > 0) text += fmt::format(" and {} shared", banner.shared_experts);
  text += banner.capacity_factor == 0 ? ", dropless" : fmt::format(", capacity factor {}", banner.capacity_factor);
  return fmt::format("{}; {} x {} grid (ranks that share the experts x copies)", text, banner.expert_size,
                     banner.expert_groups);
}

std::string exchange(const Banner& banner) {
  std::string text = banner.exchange;
  if (!banner.why_exchange.empty()) text += fmt::format(" (picked: {})", banner.why_exchange);
  const ExchangeConfig& wire = banner.wire;
  const std::array<std::string, 4> ways = {wire.of(wire.dispatch), wire.of(wire.combine),
                                           wire.of(wire.dispatch_backward), wire.of(wire.combine_backward)};
  if (std::count(ways.begin(), ways.end(), ways[0]) == 4) {
    if (ways[0] != "fp32") text += fmt::format(", {} on the wire", ways[0]);
  } else {
    text += fmt::format(", on the wire {} and {} forward, {} and {} backward", ways[0], ways[1], ways[2], ways[3]);
  }
  if (wire.chunks > 1) text += fmt::format(", in {} chunks beside the computation", wire.chunks);
  if (banner.max_received_rows > 0)
    text += fmt::format(", at most {} received rows at a time", banner.max_received_rows);
  return text;
}

std::string parameters(const Banner& banner) {
  return fmt::format("{} in all, {} active a token", count_text(static_cast<double>(banner.parameters)),
                     count_text(static_cast<double>(banner.active_parameters)));
}

std::string training(const Banner& banner) {
  std::string text =
      fmt::format("{} of {} sequences in micro-batches of {}, {} numerics on {}", plural(banner.steps, "step"),
                  banner.global_batch, banner.micro_batch, banner.numerics, banner.device);
  if (banner.attention_by_cudnn) text += ", attention by cuDNN";
  if (banner.first_step > 0) text += fmt::format("; goes on after step {}", banner.first_step);
  return text;
}

std::string memory(const Banner& banner) {
  std::vector<std::string> parts;
  for (const Banner::Memory& part : banner.memory) {
    if (part.bytes > 0) parts.push_back(fmt::format("{} {}", part.name, size_text(part.bytes)));
  }
  return fmt::format("{} a rank predicted ({}{})", size_text(predicted_memory(banner)), fmt::join(parts, ", "),
                     banner.zero == 1 ? "; ZeRO-1: the optimizer's state is split over ranks" : "");
}

}  // namespace

std::int64_t predicted_memory(const Banner& banner) {
  return std::accumulate(banner.memory.begin(), banner.memory.end(), std::int64_t{0},
                         [](std::int64_t sum, const Banner::Memory& part) { return sum + part.bytes; });
}

std::string format_banner(const Banner& banner, bool colour) {
  const char* const bold = colour ? "\033[1m" : "";
  const char* const plain = colour ? "\033[0m" : "";
  std::string text = fmt::format("{}switchyard {}{} -> {}\n", bold, banner.version, plain, banner.run);
  const auto line = [&](const char* name, const std::string& value) {
    text += fmt::format("  {}{:<11}{} {}\n", bold, name, plain, value);
  };
  line("layout", places(banner));
  line("model", model(banner));
  line("mixture", mixture(banner));
  if (banner.mixture_layers > 0) line("exchange", exchange(banner));
  line("parameters", parameters(banner));
  line("data", fmt::format("{}, {} tokens", banner.data, count_text(static_cast<double>(banner.train_tokens))));
  line("training", training(banner));
  line("memory", memory(banner));
  const std::int64_t needed = predicted_memory(banner);
  if (banner.memory_available > 0 && needed > banner.memory_available) {
    text += fmt::format(
        "  {}warning{}     that is more than the {} that a rank may take here without swapping: lower "
        "train.micro_batch, {}or spread the experts over more ranks\n",
        colour ? "\033[33m" : "", plain, size_text(banner.memory_available),
        banner.zero == 0 && banner.ranks > 1 ? "set parallel.zero = 1, " : "");
  }
  return text;
}

}  // namespace switchyard
