#include "trainer/loop/choose_exchange.h"

#include "comm/group/agree.h"
#include "layers/moe/placement.h"
#include "layers/tensor/random.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <set>

#include <fmt/core.h>
#include <sys/statvfs.h>

namespace switchyard {
namespace {

LaneSettings settings_of(const Config& config) {
  const ExchangeConfig& exchange = config.exchange;
  LaneSettings settings;
  settings.wire = {.dispatch = parse_wire(exchange.of(exchange.dispatch)),
                   .combine = parse_wire(exchange.of(exchange.combine)),
                   .dispatch_backward = parse_wire(exchange.of(exchange.dispatch_backward)),
                   .combine_backward = parse_wire(exchange.of(exchange.combine_backward))};
  settings.plan.chunks = static_cast<int>(exchange.chunks);
  settings.plan.max_received_rows = config.moe.max_received_rows;
  // Beside a GPU there is nothing for a thread to do: rows go on a stream of their own.
  settings.overlap = config.device == "cpu" && (exchange.chunks > 1 || config.moe.shared_experts > 0);
  return settings;
}

// What the hierarchical exchange may come to share of a rank's memory: two halves of the slots of a micro-batch.
std::int64_t shared_bytes(const Config& config) {
  const std::int64_t tokens = config.train.micro_batch * config.model.seq_len;
  return 2 * tokens * config.moe.top_k * config.model.d_model * size_of(DType::F32);
}

// Between GPUs the nodes decide: where a row may be wanted twice on another node, it goes there once.
bool crosses_twice(const std::vector<Node>& node_of) {
  const std::set<Node> nodes(node_of.begin(), node_of.end());
  return nodes.size() > 1 && nodes.size() < node_of.size();
}

// Has this host so much to share for all its ranks? Linux keeps shared memory in /dev/shm; a container's is often 64
// MB.
bool has_room_to_share(const Config& config, std::int64_t ranks_of_node) {
  struct statvfs space {};
  if (statvfs("/dev/shm", &space) != 0) return true;  // it is kept elsewhere
  return static_cast<double>(space.f_bavail) * static_cast<double>(space.f_frsize) >
         static_cast<double>(shared_bytes(config)) * static_cast<double>(ranks_of_node);
}

// Rows as a micro-batch of the run has them, to experts by chance.
class Trial {
 public:
  Trial(const Group& group, const Config& config) : config_(config), width_(config.model.d_model) {
    constexpr std::int64_t most_bytes = 32 << 20;
    rows_ = std::clamp<std::int64_t>(most_bytes / (4 * width_), 1, config.train.micro_batch * config.model.seq_len);
    const Placement placement(config.moe.experts, group.size());
    const Random random(config.train.seed, "trial of the exchange");
    const auto experts = static_cast<std::uint64_t>(config.moe.experts);
    auto next = static_cast<std::uint64_t>(group.rank().value()) << 40;
    for (std::int64_t row = 0; row < rows_; ++row) {
      std::set<std::int32_t> chosen;
      while (isize(chosen.size()) < config.moe.top_k) {
        chosen.insert(static_cast<std::int32_t>(random.bits(next++) % experts));
      }
      for (const std::int32_t expert : chosen) {
        slots_.push_back({static_cast<std::int32_t>(row), placement.owner(expert, group.rank()), expert, 1.0F});
      }
    }
    values_.assign(usize(rows_ * width_), 1.0F);
  }

  std::int64_t rows() const { return rows_; }

  // Plan, dispatch and combine of all pieces, seconds.
  double time(Exchange& exchange, const LaneSettings& settings) {
    exchange.group().barrier();
    const auto start = std::chrono::steady_clock::now();
    Plan plan = exchange.plan(rows_, slots_, settings.plan);
    back_.resize(values_.size());
    for (std::size_t p = 0; p < plan.pieces.size(); ++p) {
      const PlanPiece& piece = plan.pieces[p];
      received_.resize(usize(piece.received_rows() * width_));
      exchange.dispatch(plan, p, values_.data(), width_, settings.wire.dispatch, received_.data());
      if (config_.train.numerics == Numerics::Fast) {
        exchange.combine_rows(plan, p, received_.data(), width_, settings.wire.combine, nullptr, back_.data(), nullptr);
      } else {
        slot_rows_.resize(usize(piece.received_slots() * width_));
        exchange.combine_slots(plan, p, slot_rows_.data(), width_, settings.wire.combine, nullptr, back_.data(),
                               nullptr);
      }
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  const Config& config_;
  std::int64_t width_;
  std::int64_t rows_ = 0;
  std::vector<Slot> slots_;
  std::vector<float> values_, received_, slot_rows_, back_;
};

}  // namespace

ChosenExchange choose_exchange(const Group& world, const Group& group, const std::vector<Node>& node_of,
                               const Config& config) {
  const LaneSettings settings = settings_of(config);
  const auto lane_of = [&](std::unique_ptr<Exchange> exchange) {
    return std::make_unique<ExchangeLane>(std::move(exchange), settings);
  };
  const std::string& wanted = config.parallel.exchange;
  if (wanted == "flat") return {lane_of(make_flat_exchange(group, node_of)), ""};
  if (wanted == "auto" && config.device != "cpu") {
    const bool crosses = config.moe.every > 0 && world.any(crosses_twice(node_of));
    if (!crosses) return {lane_of(make_flat_exchange(group, node_of)), "rows go straight from GPU to GPU"};
    if (auto exchange = make_hierarchical_exchange(group, node_of); !world.any(exchange == nullptr)) {
      return {lane_of(std::move(exchange)), "rows cross to a node once"};
    }
    return {lane_of(make_flat_exchange(group, node_of)), "the ranks of a node share no memory"};
  }
  if (wanted == "auto") {
    const Node here = node_of[usize(group.rank().value())];
    const bool room = has_room_to_share(config, std::count(node_of.begin(), node_of.end(), here));
    const std::string why = world.size() == 1       ? "one rank"
                            : config.moe.every == 0 ? "no mixture"
                            : world.any(!room)
                                ? fmt::format("/dev/shm has no room for {} MiB a rank", shared_bytes(config) >> 20)
                                : "";
    if (!why.empty()) return {lane_of(make_flat_exchange(group, node_of)), why};
  }

  std::unique_ptr<Exchange> hierarchical = make_hierarchical_exchange(group, node_of);
  if (world.any(hierarchical == nullptr)) {
    if (wanted == "hierarchical") {
      throw CollectiveError(ErrorKind::Usage,
                            "parallel.exchange = \"hierarchical\" needs ranks of a node that share its memory, but "
                            "parallel.ranks_per_node puts ranks of different hosts on one node: set it to 0 (detect), "
                            "or use \"flat\"");
    }
    return {lane_of(make_flat_exchange(group, node_of)), "the ranks of a node share no memory"};
  }
  if (wanted == "hierarchical") return {lane_of(std::move(hierarchical)), ""};

  std::unique_ptr<Exchange> flat = make_flat_exchange(group, node_of);
  Trial trial(group, config);
  std::array<double, 2> best;
  best.fill(std::numeric_limits<double>::max());
  constexpr int rounds = 4;
  for (int round = 0; round < rounds; ++round) {
    std::array<double, 2> times = {trial.time(*flat, settings), trial.time(*hierarchical, settings)};
    world.max(times);
    if (round == 0) continue;  // memory is taken and connections are made
    for (std::size_t i = 0; i < best.size(); ++i) best[i] = std::min(best[i], times[i]);
  }
  // What the trial made them keep is given back.
  flat = nullptr;
  hierarchical = nullptr;
  const std::string why =
      fmt::format("{:.1f} ms against {:.1f} for {}, in a trial of {} tokens a rank", 1e3 * std::min(best[0], best[1]),
                  1e3 * std::max(best[0], best[1]), best[0] <= best[1] ? "hierarchical" : "flat", trial.rows());
  return {lane_of(best[0] <= best[1] ? make_flat_exchange(group, node_of) : make_hierarchical_exchange(group, node_of)),
          why};
}

}  // namespace switchyard
