// switchyard bench exchange: the rows of one layer to their experts and back, in the ways that there are, side by side:
// how long they take, how many bytes they move, and how many would have to be moved.
#include "launch/bench_exchange.h"

#include "comm/base/stopwatch.h"
#include "comm/group/agree.h"
#include "comm/group/environment.h"
#include "comm/group/fault_point.h"
#include "comm/group/topology.h"
#include "launch/bench_candidates.h"
#include "launch/bench_routing.h"
#include "launch/cli.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <omp.h>

namespace switchyard {
namespace {

struct Arguments {
  RoutingOptions routing;
  std::int64_t width = 1024;
  int ranks_per_node = 0;
  std::string wire = "fp32";
  int chunks = 1;
  std::string numerics = "fast";
  std::int64_t rounds = 10;
  double link_gbit = 0;
  bool json = false;
};

enum Stage { Plan, Dispatch, Combine };
constexpr std::size_t stages = 3;
constexpr const char* stage_names[stages] = {"plan", "dispatch", "combine"};

// Bytes of all ranks together.
struct Moved {
  std::int64_t across = 0;
  std::int64_t inside = 0;
  std::int64_t metadata_across = 0;
  std::int64_t metadata_inside = 0;
};

// What must be moved, of all ranks together.
struct Least {
  std::int64_t across = 0;
  std::int64_t inside = 0;
  std::int64_t busiest = 0;  // out of or into one node
};

struct Contender {
  std::unique_ptr<ExchangeCandidate> candidate;
  std::array<std::vector<double>, stages> seconds;  // a round; the slowest rank's
  std::array<Moved, stages> moved;                  // in a round: all are alike
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}
double best(const std::vector<double>& values) {
  return *std::min_element(values.begin(), values.end());
}

class Bench {
 public:
  Bench(const Arguments& arguments, const Group& world)
      : arguments_(arguments),
        world_(world),
        wire_(parse_wire(arguments.wire)),
        nodes_(find_nodes(world, arguments.ranks_per_node)),
        task_{.group = world,
              .node_of = nodes_.node_of,
              .slots = random_slots(arguments.routing, world.rank(), world.size()),
              .tokens = arguments.routing.tokens,
              .width = arguments.width,
              .numerics = arguments.numerics == "fast" ? Numerics::Fast : Numerics::Reproducible,
              .chunks = arguments.chunks} {
    rows_.resize(usize(task_.tokens * task_.width));
    for (std::int64_t i = 0; i < isize(rows_.size()); ++i)
      rows_[usize(i)] = static_cast<float>((i * 5 + i / 7) % 7 - 3);
    back_.resize(rows_.size());
    count_least();
    add(make_slots_candidate(task_));
    add(make_exchange_candidate(task_, make_flat_exchange(world, nodes_.node_of), "flat, a row to a rank once"));
    if (auto exchange = make_hierarchical_exchange(world, nodes_.node_of)) {
      add(make_exchange_candidate(task_, std::move(exchange), "hierarchical, to a node once"));
    }
  }

  void run() {
    for (std::size_t i = 0; i < contenders_.size(); ++i) {
      pass_fault_point(isize(i), "check");
      check(*contenders_[i].candidate);
    }
    for (std::int64_t round = 0; round < arguments_.rounds; ++round) {
      // In turn, so that a machine or a network that speeds up or slows down does so for all.
      for (Contender& contender : contenders_) measure(contender);
    }
    for (Contender& contender : contenders_) {
      for (std::vector<double>& seconds : contender.seconds) world_.max(seconds);
    }
  }

  nlohmann::json result() const;
  void print(const nlohmann::json& result) const;

 private:
  void add(std::unique_ptr<ExchangeCandidate> candidate) { contenders_.push_back({std::move(candidate), {}, {}}); }

  void count_least() {
    const LeastRows mine = least_rows(task_.slots, world_.rank(), task_.node_of);
    const std::size_t nodes = usize(nodes_.nodes());
    const std::size_t from = usize(task_.node_of[usize(world_.rank().value())].value());
    std::vector<std::int64_t> rows(nodes * nodes, 0);
    std::vector<std::int64_t> slots(nodes * nodes, 0);
    std::copy(mine.rows_to.begin(), mine.rows_to.end(), rows.begin() + isize(from * nodes));
    std::copy(mine.slots_to.begin(), mine.slots_to.end(), slots.begin() + isize(from * nodes));
    world_.sum(rows);
    world_.sum(slots);
    std::array<std::int64_t, 6> sums = {mine.across(),     mine.inside,          mine.slots_across(),
                                        mine.slots_inside, mine.tokens_to_nodes, mine.tokens_to_ranks};
    world_.sum(sums);
    const std::int64_t bytes = wire_row_bytes(wire_, task_.width);
    const auto least = [&](std::int64_t across, std::int64_t inside, const std::vector<std::int64_t>& between) {
      return Least{across * bytes, inside * bytes, busiest_node(between, nodes_.nodes()) * bytes};
    };
    least_[Dispatch] = least(sums[0], sums[1], rows);
    least_[Combine] = task_.numerics == Numerics::Fast ? least_[Dispatch] : least(sums[2], sums[3], slots);
    // DeepEP counts a row for each node (over RDMA) or rank (over NVLink) that wants it, the sender's own among them,
    // in the bytes of its format with scales, and the same for combine, whatever really travels ("logical bandwidth";
    // tests/test_internode.py: num_rdma_token_sent, dispatch_bf16_nvl_recv_bytes). Its figures are those of a rank.
    logical_ = static_cast<double>((nodes_.nodes() > 1 ? sums[4] : sums[5]) * bytes) / world_.size();
  }

  // Small integers: products and sums are exact, in whatever order. As fp32 and bf16 they travel exactly, too.
  void check(ExchangeCandidate& candidate) {
    for (const Wire wire : {Wire::F32, wire_}) {
      std::vector<float> sent = rows_;
      if (take_planted_spoil()) sent.back() += 1;
      candidate.plan();
      candidate.dispatch(sent.data(), wire);
      candidate.work();
      candidate.combine(back_.data(), wire);
      std::vector<double> factors(usize(task_.tokens), 0.0);
      for (const Slot& slot : task_.slots) factors[usize(slot.row)] += slot.tag % 3 + 1;
      std::int64_t wrong = 0;
      for (std::size_t i = 0; i < rows_.size(); ++i) {
        const double factor = factors[i / usize(task_.width)];
        const double off = std::abs(static_cast<double>(back_[i]) - factor * static_cast<double>(rows_[i]));
        const double allowed = wire == Wire::I8 ? 3 * factor / 40 : 0;  // thrice rounded to 1/254 of the largest, 3
        if (!(off <= allowed)) ++wrong;
      }
      collectively(world_, "checking the exchange", [&] {
        require(wrong == 0, "{}: {} of {} sums are wrong, with {} on the wire", candidate.name(), wrong, rows_.size(),
                switchyard::name_of(wire));
      });
    }
    candidate.take_traffic();
  }

  void measure(Contender& contender) {
    ExchangeCandidate& candidate = *contender.candidate;
    const auto stage = [&](Stage which, const auto& work) {
      world_.barrier();
      double seconds = 0;
      {
        const Stopwatch stopwatch(seconds);
        work();
      }
      contender.seconds[which].push_back(seconds);
      const ExchangeTraffic traffic = candidate.take_traffic();
      std::array<std::int64_t, 4> bytes = {traffic.across_nodes.total(), traffic.inside_node.total(),
                                           traffic.across_nodes.metadata, traffic.inside_node.metadata};
      world_.sum(bytes);
      contender.moved[which] = {bytes[0], bytes[1], bytes[2], bytes[3]};
    };
    stage(Plan, [&] { candidate.plan(); });
    stage(Dispatch, [&] { candidate.dispatch(rows_.data(), wire_); });
    candidate.work();
    stage(Combine, [&] { candidate.combine(back_.data(), wire_); });
  }

  // Dispatch and combine of each round together.
  static std::vector<double> both(const Contender& contender) {
    std::vector<double> seconds = contender.seconds[Dispatch];
    for (std::size_t i = 0; i < seconds.size(); ++i) seconds[i] += contender.seconds[Combine][i];
    return seconds;
  }
  nlohmann::json stage_result(const Contender& contender, Stage stage) const;

  const Arguments& arguments_;
  const Group& world_;
  Wire wire_;
  NodeMap nodes_;
  ExchangeTask task_;
  std::vector<float> rows_;
  std::vector<float> back_;
  std::array<Least, stages> least_;
  double logical_ = 0;  // bytes of a rank
  std::vector<Contender> contenders_;
};

nlohmann::json Bench::stage_result(const Contender& contender, Stage stage) const {
  const double seconds = median(contender.seconds[stage]);
  const Moved& moved = contender.moved[stage];
  nlohmann::json result = {{"seconds", seconds},
                           {"best_seconds", best(contender.seconds[stage])},
                           {"across_bytes", moved.across},
                           {"inside_bytes", moved.inside},
                           {"across_metadata_bytes", moved.metadata_across},
                           {"inside_metadata_bytes", moved.metadata_inside}};
  if (stage == Plan) return result;
  const Least& least = least_[stage];
  const std::int64_t wire_bytes = nodes_.nodes() > 1 ? moved.across : moved.inside;
  result["across_least_bytes"] = least.across;
  result["inside_least_bytes"] = least.inside;
  result["logical_gb_per_s"] = logical_ / seconds * 1e-9;
  result["wire_gb_per_s"] = static_cast<double>(wire_bytes) / world_.size() / seconds * 1e-9;
  return result;
}

double share(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

nlohmann::json Bench::result() const {
  const RoutingOptions& routing = arguments_.routing;
  nlohmann::json result = {{"ranks", world_.size()},
                           {"nodes", nodes_.nodes()},
                           {"threads", omp_get_max_threads()},
                           {"tokens", routing.tokens},
                           {"width", task_.width},
                           {"top_k", routing.top_k},
                           {"experts", routing.experts},
                           {"skew", routing.skew},
                           {"wire", switchyard::name_of(wire_)},
                           {"row_bytes", wire_row_bytes(wire_, task_.width)},
                           {"chunks", task_.chunks},
                           {"numerics", arguments_.numerics},
                           {"rounds", arguments_.rounds}};
  const double slots_seconds = median(both(contenders_.front()));
  const double slots_best = best(both(contenders_.front()));
  const double floor =
      arguments_.link_gbit > 0
          ? static_cast<double>(least_[Dispatch].busiest + least_[Combine].busiest) * 8e-9 / arguments_.link_gbit
          : 0;
  if (floor > 0) result["floor_seconds"] = floor;
  for (const Contender& contender : contenders_) {
    nlohmann::json figures = {{"name", contender.candidate->name()}};
    Moved all;
    for (const Stage stage : {Plan, Dispatch, Combine}) {
      figures[stage_names[stage]] = stage_result(contender, stage);
      all.across += contender.moved[stage].across;
      all.inside += contender.moved[stage].inside;
      all.metadata_across += contender.moved[stage].metadata_across;
      all.metadata_inside += contender.moved[stage].metadata_inside;
    }
    const double seconds = median(both(contender));
    const std::int64_t least_across = least_[Dispatch].across + least_[Combine].across;
    const std::int64_t least_inside = least_[Dispatch].inside + least_[Combine].inside;
    figures["seconds"] = seconds;  // dispatch and combine
    figures["best_seconds"] = best(both(contender));
    figures["faster_than_slots"] = slots_seconds / seconds;
    figures["best_faster_than_slots"] = slots_best / best(both(contender));
    figures["across_bytes"] = all.across;
    figures["inside_bytes"] = all.inside;
    figures["across_rows_over_least"] = share(all.across - all.metadata_across, least_across);
    figures["inside_rows_over_least"] = share(all.inside - all.metadata_inside, least_inside);
    figures["metadata_share"] =
        nodes_.nodes() > 1 ? share(all.metadata_across, all.across) : share(all.metadata_inside, all.inside);
    if (floor > 0) figures["over_floor"] = seconds / floor;
    result["candidates"][contender.candidate->key()] = figures;
  }
  return result;
}

void Bench::print(const nlohmann::json& result) const {
  const RoutingOptions& routing = arguments_.routing;
  fmt::print(
      "{} rank{} on {} node{}; {} tokens a rank, {} wide, {} of {} experts each, skew {}; {} on the wire, {} chunk{}, "
      "{} "
      "numerics\nmedians of {} rounds, of the slowest rank; bytes of all ranks for one plan, dispatch and combine; the "
      "least inside "
      "nodes\nis what remains to be done there where each row crosses to a node once\n\n",
      world_.size(), world_.size() == 1 ? "" : "s", nodes_.nodes(), nodes_.nodes() == 1 ? "" : "s", routing.tokens,
      task_.width, routing.top_k, routing.experts, routing.skew, switchyard::name_of(wire_), task_.chunks,
      task_.chunks == 1 ? "" : "s", arguments_.numerics, arguments_.rounds);
  fmt::print("{:<28} {:-^26} {:-^21} {:>6}  {:-^17} {:-^17} {:>8}  {:-^17} {:-^17}{}\n", "", " ms ",
             " dispatch + combine ", "times", " across nodes ", " inside nodes ", "metadata", " GB/s, DeepEP's ",
             " GB/s, wire ", result.contains("floor_seconds") ? "    of" : "");
  fmt::print("{:<28} {:>8} {:>8} {:>8} {:>10} {:>10} {:>6}  {:>9} {:>7} {:>9} {:>7} {:>8}  {:>8} {:>8} {:>8} {:>8}{}\n",
             "", "plan", "dispatch", "combine", "median ms", "best ms", "slots", "MiB", "least", "MiB", "least",
             "share", "dispatch", "combine", "dispatch", "combine", result.contains("floor_seconds") ? " floor" : "");
  const auto mib = [](const nlohmann::json& bytes) { return bytes.get<double>() / (1 << 20); };
  for (const Contender& contender : contenders_) {
    const nlohmann::json& figures = result.at("candidates").at(contender.candidate->key());
    const auto ms = [&](const char* stage) { return 1e3 * figures.at(stage).at("seconds").get<double>(); };
    const auto rate = [&](const char* stage, const char* key) { return figures.at(stage).at(key).get<double>(); };
    fmt::print(
        "{:<28} {:>8.2f} {:>8.2f} {:>8.2f} {:>10.2f} {:>10.2f} {:>6.2f}  {:>9.2f} {:>7.3f} {:>9.2f} {:>7.3f} {:>6.2f} "
        "%  {:>8.3f} {:>8.3f} {:>8.3f} {:>8.3f}{}\n",
        contender.candidate->name(), ms("plan"), ms("dispatch"), ms("combine"),
        1e3 * figures.at("seconds").get<double>(), 1e3 * figures.at("best_seconds").get<double>(),
        figures.at("faster_than_slots").get<double>(), mib(figures.at("across_bytes")),
        figures.at("across_rows_over_least").get<double>(), mib(figures.at("inside_bytes")),
        figures.at("inside_rows_over_least").get<double>(), 100 * figures.at("metadata_share").get<double>(),
        rate("dispatch", "logical_gb_per_s"), rate("combine", "logical_gb_per_s"), rate("dispatch", "wire_gb_per_s"),
        rate("combine", "wire_gb_per_s"),
        figures.contains("over_floor") ? fmt::format(" {:>5.2f}", figures.at("over_floor").get<double>()) : "");
  }
  if (contenders_.size() < 3) fmt::print("no hierarchical exchange: the ranks of some node do not share its memory\n");
  if (result.contains("floor_seconds")) {
    fmt::print("floor: {:.2f} ms, in which {} Gbit/s carry the least that the busiest node must send or receive\n",
               1e3 * result.at("floor_seconds").get<double>(), arguments_.link_gbit);
  }
}

int run_bench_exchange(const Arguments& arguments) {
  if (arguments.routing.top_k > arguments.routing.experts) {
    throw UsageError(fmt::format("--top-k {} experts a token, but there are only --experts {}", arguments.routing.top_k,
                                 arguments.routing.experts));
  }
  Environment environment;
  Bench bench(arguments, environment.world());
  bench.run();
  if (!environment.world().is_root()) return 0;
  const nlohmann::json result = bench.result();
  bench.print(result);
  if (arguments.json) fmt::print("{}\n", result.dump());
  return 0;
}

}  // namespace

void add_bench_exchange(const Command& parent, Run& run) {
  const Command command = parent.add_command(
      "exchange", "Rows to experts and back, under mpirun: MPI_Alltoallv of slots, flat and hierarchical");
  auto arguments = std::make_shared<Arguments>();
  const auto number = [&](const char* name, auto& value, const Accepted& accepted, const char* help) {
    command.add_option(name, value, help, {.accepted = accepted, .show_default = true});
  };
  number("--tokens", arguments->routing.tokens, accept::Integers{1, 1 << 24}, "Of each rank");
  number("--width", arguments->width, accept::Integers{1, 1 << 20}, "Of a token");
  number("--top-k", arguments->routing.top_k, accept::Integers{1, 1 << 16}, "Experts that a token goes to");
  number("--experts", arguments->routing.experts, accept::Integers{1, 1 << 16}, "In balanced shares over the ranks");
  number("--skew", arguments->routing.skew, accept::Reals{0, 10},
         "The n-th most wanted expert is drawn in proportion to n^-SKEW");
  number("--seed", arguments->routing.seed, accept::NotNegative(), "Of the routing");
  number("--ranks-per-node", arguments->ranks_per_node, accept::NotNegative(),
         "Take so many ranks for a node; 0: detect");
  number("--wire", arguments->wire, accept::OneOf{wire_names()}, "How rows lie on the wire");
  number("--chunks", arguments->chunks, accept::Integers{1, 64}, "Pieces of the tokens, exchanged one after the other");
  number("--numerics", arguments->numerics, accept::OneOf{{"fast", "reproducible"}},
         "fast: sums come back; reproducible: every slot's row");
  number("--rounds", arguments->rounds, accept::Positive(), "Of each candidate, in turn, after one that is checked");
  number("--link-gbit", arguments->link_gbit, accept::NotNegative(),
         "What a node's link carries, Gbit/s, to compare with; 0: not known");
  command.add_flag("--json", arguments->json, "End with one line that holds one JSON object");
  command.does(run, [arguments] { return run_bench_exchange(*arguments); });
}

}  // namespace switchyard
