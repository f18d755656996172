#include "trainer/loop/engine.h"

#include "comm/base/stopwatch.h"
#include "comm/base/timers.h"
#include "comm/device/host_view.h"
#include "comm/group/agree.h"
#include "comm/group/environment.h"
#include "comm/group/fault_point.h"
#include "trainer/loop/writers.h"
#include "trainer/optim/moving.h"
#include "trainer/optim/schedule.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include <xxhash.h>

namespace switchyard {
namespace {

double largest_over_mean(const std::vector<std::int64_t>& loads) {
  std::int64_t largest = 0;
  std::int64_t sum = 0;
  for (const std::int64_t load : loads) {
    largest = std::max(largest, load);
    sum += load;
  }
  return sum == 0 ? 0.0 : static_cast<double>(largest) * static_cast<double>(loads.size()) / static_cast<double>(sum);
}

bool all_finite(const float* values, std::int64_t count) {
  constexpr std::uint32_t exponent = 0x7f800000;
  std::uint32_t found = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    found |= (std::bit_cast<std::uint32_t>(values[i]) & exponent) == exponent ? 1U : 0U;
  }
  return found == 0;
}

// What the ranks learn of each other's micro-batches: numbers that have one non-zero contributor each, placed by
// micro-batch, so that their sum over ranks is exact and what is computed from them does not depend on who ran what.
class StepTable {
 public:
  StepTable(std::int64_t micro_batches, std::int64_t layers, std::int64_t experts)
      : layers_(layers),
        experts_(experts),
        columns_(3 + 2 * layers),
        values_(usize(micro_batches * columns_), 0.0),
        counts_(usize(layers * (experts + 2)), 0) {}

  void put(std::int64_t micro_batch, const MicroBatchReport& report) {
    double* row = &values_[usize(micro_batch * columns_)];
    row[0] = report.loss;
    row[1] = report.aux_loss;
    row[2] = report.z_loss;
    for (std::int64_t l = 0; l < layers_; ++l) {
      const MoeReport& moe = report.moe[usize(l)];
      row[3 + 2 * l] = moe.losses.entropy;
      row[4 + 2 * l] = largest_over_mean(moe.chosen) - 1;
      std::int64_t* counts = &counts_[usize(l * (experts_ + 2))];
      for (std::int64_t e = 0; e < experts_; ++e) counts[e] += moe.chosen[usize(e)];
      counts[experts_] += moe.kept;
      counts[experts_ + 1] += moe.dropped;
    }
  }

  void sum_over(const Group& world) {
    world.sum(std::span<double>(values_));
    world.sum(std::span<std::int64_t>(counts_));
  }

  double mean(std::int64_t column) const {
    double sum = 0;
    for (std::size_t at = usize(column); at < values_.size(); at += usize(columns_)) sum += values_[at];
    return sum / static_cast<double>(values_.size() / usize(columns_));
  }

  LayerLoad layer(std::int64_t l, std::int64_t number) const {
    const std::int64_t* counts = &counts_[usize(l * (experts_ + 2))];
    return {.layer = number,
            .chosen = {counts, counts + experts_},
            .kept = counts[experts_],
            .dropped = counts[experts_ + 1],
            .entropy = mean(3 + 2 * l),
            .max_violation = mean(4 + 2 * l)};
  }

 private:
  std::int64_t layers_, experts_, columns_;
  std::vector<double> values_;        // [micro-batches, columns]
  std::vector<std::int64_t> counts_;  // [layers, experts + 2]
};

std::vector<CopySet> copy_sets(std::span<const ParameterSpec> specs, const ExpertMap& experts) {
  return make_copy_sets(specs, experts.ranks(), [&](int layer, int expert) { return experts.owners(layer, expert); });
}

}  // namespace

double LayerLoad::load_max_over_mean() const {
  return largest_over_mean(chosen);
}
std::int64_t LayerLoad::dead_experts() const {
  return std::count(chosen.begin(), chosen.end(), 0);
}
double LayerLoad::drop_rate() const {
  return kept + dropped == 0 ? 0.0 : static_cast<double>(dropped) / static_cast<double>(kept + dropped);
}

Engine::Engine(const Config& config, Layout& layout, Device& device)
    : config_(config),
      layout_(layout),
      device_(device),
      model_(config, device, layout.lane(), layout.experts().placements_of(layout.my_group())),
      world_transport_(layout.grid().groups() == 1
                           ? nullptr
                           : make_device_transport(layout.world(), device, config.parallel.device_transport)),
      optimizer_(model_.parameters(), layout.world(), copy_sets(model_.parameters().specs(), layout.experts()),
                 config.parallel.zero, device, device_transport()),
      loads_(model_.moe_layers().size(), std::vector<std::int64_t>(usize(config.moe.experts), 0)) {
  // Beyond so many experts the numbers of their pairs are too many to keep and to send.
  constexpr std::int64_t most_experts = 1024;
  const std::int64_t experts = config.moe.experts;
  if (config.moe.rebalance_every > 0 && layout.nodes().nodes() > 1 && experts <= most_experts) {
    pairs_.assign(loads_.size(), std::vector<std::int64_t>(usize(experts * experts), 0));
    for (std::size_t l = 0; l < pairs_.size(); ++l) model_.count_pairs(l, pairs_[l]);
  }
  const std::int64_t tokens = config.train.micro_batch * config.model.seq_len;
  tokens_.resize(usize(tokens));
  targets_.resize(usize(tokens));
  sequence_.resize(usize(config.model.seq_len + 1));
}

DeviceTransport* Engine::device_transport() const {
  return world_transport_ != nullptr ? world_transport_.get() : model_.device_transport();
}

void Engine::read_micro_batch(std::int64_t first, std::int64_t sequences, const ReadSequence& read) {
  const PhaseTimer timer(Phase::Data);
  const std::int64_t length = config_.model.seq_len;
  for (std::int64_t i = 0; i < sequences; ++i) {
    read(first + i, sequence_);
    std::copy_n(sequence_.begin(), length, tokens_.begin() + i * length);
    std::copy_n(sequence_.begin() + 1, length, targets_.begin() + i * length);
  }
}

StepReport Engine::step(std::int64_t step, std::int64_t updates, std::int64_t first_sample, const ReadSequence& read,
                        const StepHooks& hooks) {
  const TrainConfig& train = config_.train;
  const Group& world = layout_.world();
  const std::int64_t micro_batches = train.global_batch / train.micro_batch;
  StepTable table(micro_batches, isize(model_.moe_layers().size()), config_.moe.experts);

  // Micro-batch m belongs to rank m mod ranks. All ranks go through the same number of rounds; in the last one some may
  // have nothing, and lend their experts to the others.
  for (std::int64_t round = 0; round * world.size() < micro_batches; ++round) {
    const std::int64_t mine = round * world.size() + world.rank().value();
    const bool has_one = mine < micro_batches;
    const std::int64_t sequences = has_one ? train.micro_batch : 0;
    set_progress(step + 1, "data");
    read_micro_batch(first_sample + mine * train.micro_batch, sequences, read);
    const std::size_t tokens = usize(sequences * config_.model.seq_len);
    const MicroBatchReport report = model_.train({.sequences = sequences,
                                                  .tokens = std::span(tokens_).first(tokens),
                                                  .targets = std::span(targets_).first(tokens)});
    if (has_one) table.put(mine, report);
  }

  set_progress(step + 1, "gradient sums");
  if (take_planted_nan()) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const Buffer there(device_, Bytes(sizeof(nan)));
    device_.copy_from_host(there.data(), &nan, there.size(), device_.stream());
    add_partial(model_.parameters().here().back()->gradient(), static_cast<const float*>(there.data()), 1);
  }
  {
    const PhaseTimer timer(Phase::Reduce);
    table.sum_over(world);
    optimizer_.sum_gradients();
  }

  set_progress(step + 1, "update");
  const PhaseTimer timer(Phase::Optimizer);
  const auto& specs = model_.parameters().specs();
  const double mean = 1.0 / static_cast<double>(micro_batches);
  std::vector<double> squares(specs.size(), 0.0);
  const std::vector<double> local = optimizer_.gradient_squares(mean);
  for (const auto& parameter : model_.parameters().here()) {
    const Owner owner = parameter->owner();
    const Rank speaker = owner.replicated() ? Rank(0) : layout_.experts().writer_of(owner.layer, owner.expert);
    const std::size_t spec = model_.parameters().spec_index(*parameter);
    if (speaker == world.rank()) squares[spec] = local[spec];
  }
  world.sum(std::span<double>(squares));
  double sum = 0;
  for (const double square : squares) sum += square;

  StepReport report;
  report.loss = table.mean(0);
  report.aux_loss = table.mean(1);
  report.z_loss = table.mean(2);
  report.tokens = train.global_batch * config_.model.seq_len;
  for (std::size_t l = 0; l < model_.moe_layers().size(); ++l) {
    report.layers.push_back(table.layer(isize(l), model_.moe_layers()[l]));
    LayerLoad& load = report.layers.back();
    load.rank_load_max_over_mean = layout_.experts().work_max_over_mean(l, load.chosen);
    for (std::size_t e = 0; e < load.chosen.size(); ++e) loads_[l][e] += load.chosen[e];
    const std::int64_t slots = load.kept + load.dropped;
    require(slots == report.tokens * config_.moe.top_k,
            "layer {}: {} slots kept or dropped, but {} tokens have {} each", report.layers.back().layer, slots,
            report.tokens, config_.moe.top_k);
  }
  report.lr = learning_rate(train, step);
  report.grad_norm = std::sqrt(sum);
  const bool overflow = world.any(optimizer_.take_non_finite());
  report.applied = !overflow && std::isfinite(report.grad_norm) && std::isfinite(report.loss);
  if (report.applied && hooks.accept) report.applied = hooks.accept(report);
  if (report.applied) {
    if (hooks.before_update) hooks.before_update();
    const double clip =
        train.grad_clip > 0 && report.grad_norm > train.grad_clip ? train.grad_clip / report.grad_norm : 1.0;
    optimizer_.update(train, report.lr, mean * clip, updates + 1);
    set_progress(step + 1, "gathering weights");
    const PhaseTimer gathering(Phase::Reduce);
    optimizer_.gather_values();
  }
  if (config_.moe.rebalance_every > 0 && (step + 1) % config_.moe.rebalance_every == 0) {
    set_progress(step + 1, "rebalancing");
    const PhaseTimer moving(Phase::Reduce);
    if (hooks.before_update) hooks.before_update();
    report.rebalance = rebalance();
  }
  optimizer_.zero_gradients();
  return report;
}

RebalanceReport Engine::rebalance() {
  RebalanceReport report;
  {
    const Stopwatch stopwatch(report.seconds);
    const ExpertMap& now = layout_.experts();
    ExpertMap next = now;
    for (std::size_t l = 0; l < loads_.size(); ++l) {
      report.before = std::max(report.before, now.work_max_over_mean(l, loads_[l]));
      std::span<std::int64_t> pairs;
      if (!pairs_.empty()) {
        pairs = pairs_[l];
        layout_.world().sum(pairs);
      }
      next.rebalance(l, loads_[l], pairs);
      report.after = std::max(report.after, next.work_max_over_mean(l, loads_[l]));
      const std::int64_t moved = next.moved_from(now, l);
      report.moved += moved;
      report.layers += moved > 0 ? 1 : 0;
      std::fill(loads_[l].begin(), loads_[l].end(), 0);
      std::fill(pairs.begin(), pairs.end(), 0);
    }
    report.bytes = place(std::move(next)).value();
    layout_.world().sum(std::span<std::int64_t>(&report.bytes, 1));
  }
  return report;
}

Bytes Engine::place(ExpertMap next) {
  const auto sets = copy_sets(model_.parameters().specs(), next);
  std::int64_t sent = 0;
  for (std::size_t l = 0; l < model_.moe_layers().size(); ++l) {
    const int layer = static_cast<int>(model_.moe_layers()[l]);
    std::vector<CopySet> of_layer;
    for (const CopySet& set : sets) {
      if (set.layer == layer) of_layer.push_back(set);
    }
    sent += move_experts(layout_.world(), device_transport(), layout_.nodes().node_of, layer, std::move(of_layer),
                         model_.parameters(), optimizer_)
                .value();
    model_.place(l, next.placement(l, layout_.my_group()));
  }
  layout_.set_experts(std::move(next));
  return Bytes(sent);
}

double Engine::evaluate(const ReadSequence& read, std::int64_t sequences) {
  const Group& world = layout_.world();
  const std::int64_t batch = config_.train.micro_batch;
  const std::int64_t length = config_.model.seq_len;
  std::vector<double> sums(usize(sequences), 0.0);  // by sequence, one contributor each
  std::vector<float> losses(usize(batch * length));
  for (std::int64_t first = 0; first < sequences; first += batch * world.size()) {
    const std::int64_t begin = first + world.rank().value() * batch;
    const std::int64_t count = std::clamp<std::int64_t>(sequences - begin, 0, batch);
    read_micro_batch(begin, count, read);
    const std::size_t tokens = usize(count * length);
    model_.evaluate(
        {.sequences = count, .tokens = std::span(tokens_).first(tokens), .targets = std::span(targets_).first(tokens)},
        std::span(losses).first(tokens));
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t t = 0; t < length; ++t)
        sums[usize(begin + i)] += static_cast<double>(losses[usize(i * length + t)]);
    }
  }
  world.sum(std::span<double>(sums));
  double sum = 0;
  for (const double sequence : sums) sum += sequence;
  return sum / static_cast<double>(sequences * length);
}

std::uint64_t Engine::digest() {
  // Every holder of a parameter hashes its copy: copies that have drifted apart are told here, not trained on.
  const auto& specs = model_.parameters().specs();
  std::vector<std::uint64_t> largest(specs.size(), 0);
  std::vector<std::uint64_t> smallest(specs.size(), ~std::uint64_t{0});
  std::vector<std::int64_t> finite(specs.size(), 1);
  const auto& here = model_.parameters().here();
#pragma omp parallel for schedule(dynamic)
  for (std::size_t i = 0; i < here.size(); ++i) {
    const std::size_t at = model_.parameters().spec_index(*here[i]);
    const HostView<float> value(here[i]->value().device(), here[i]->value().f32(), here[i]->size());
    largest[at] = smallest[at] = XXH3_64bits(value.data(), usize(here[i]->size()) * sizeof(float));
    finite[at] = all_finite(value.data(), here[i]->size()) ? 1 : 0;
  }
  Transport& transport = layout_.world().transport();
  transport.all_reduce(largest.data(), isize(largest.size()), DType::U64, ReduceOp::Max);
  transport.all_reduce(smallest.data(), isize(smallest.size()), DType::U64, ReduceOp::Min);
  transport.all_reduce(finite.data(), isize(finite.size()), DType::I64, ReduceOp::Min);
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (finite[i] == 0) {
      throw CollectiveError(
          ErrorKind::Runtime,
          fmt::format("{} has become NaN or infinite: the run has diverged (a lower train.lr may help). "
                      "Nothing of this is saved; the last checkpoint stands",
                      specs[i].name));
    }
    require(largest[i] == smallest[i],
            "the ranks' copies of {} are not the same any more (digests {:016x} and {:016x})", specs[i].name,
            smallest[i], largest[i]);
  }
  return XXH3_64bits(largest.data(), largest.size() * sizeof(std::uint64_t));
}

std::vector<Engine::Writers> Engine::writers() {
  // Replicated tensors are written whole, spread over the ranks by their bytes beside the experts that those write.
  // Moments that are split are written by those who have them: of experts by all owners alike, of the rest by all
  // ranks.
  const bool split = config_.parallel.zero == 1;
  const ExpertMap& experts = layout_.experts();
  const auto& specs = model_.parameters().specs();
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> loads(usize(layout_.world().size()), 0);
  for (const ParameterSpec& spec : specs) {
    const std::int64_t bytes = spec.shape.size() * size_of(DType::F32);
    const std::int64_t moment = split ? 0 : bytes;
    if (spec.owner.replicated()) {
      sizes.insert(sizes.end(), {bytes, moment, moment});
      continue;
    }
    loads[usize(experts.writer_of(spec.owner.layer, spec.owner.expert).value())] += bytes + 2 * moment;
    if (!split) continue;
    const std::vector<Rank> owners = experts.owners(spec.owner.layer, spec.owner.expert);
    for (const Rank owner : owners) loads[usize(owner.value())] += 2 * bytes / isize(owners.size());
  }
  const std::vector<int> spread = spread_writers(sizes, std::move(loads));
  auto next = spread.begin();
  std::vector<Writers> result;
  for (const ParameterSpec& spec : specs) {
    Writers& writers = result.emplace_back();
    for (Rank& writer : writers)
      writer = spec.owner.replicated() ? Rank(*next++) : experts.writer_of(spec.owner.layer, spec.owner.expert);
  }
  return result;
}

std::vector<StateTensor> Engine::state() {
  const ParameterList& parameters = model_.parameters();
  const std::vector<Writers> ranks = writers();
  const auto tensor = [&](const Parameter& parameter, StateKind kind, float* data) {
    return StateTensor{
        .name = parameter.name(), .kind = kind, .owner = parameter.owner(), .shape = parameter.shape(), .data = data};
  };
  const auto writes = [&](const Parameter& parameter, StateKind kind) {
    return ranks[parameters.spec_index(parameter)][static_cast<std::size_t>(kind)] == layout_.world().rank();
  };
  state_views_.clear();
  const auto seen = [&](float* data, std::int64_t count) {
    return state_views_.emplace_back(device_, data, count, HostAccess::ReadWrite).data();
  };
  std::vector<StateTensor> tensors;
  for (const auto& parameter : parameters.here()) {
    tensors.push_back(tensor(*parameter, StateKind::Weight, seen(parameter->value().f32(), parameter->size())));
    tensors.back().write = writes(*parameter, StateKind::Weight);
  }
  for (const Optimizer::State& state : optimizer_.states()) {
    const Parameter& parameter = *parameters.find(state.piece.parameter);
    for (const StateKind kind : {StateKind::Moment1, StateKind::Moment2}) {
      float* const data =
          seen(kind == StateKind::Moment1 ? state.first_moment() : state.second_moment(), state.piece.count);
      tensors.push_back(tensor(parameter, kind, data));
      tensors.back().write = state.split || writes(parameter, kind);
      if (state.piece.count == parameter.size()) continue;  // all of it
      tensors.back().offset = state.piece.offset;
      tensors.back().count = state.piece.count;
    }
  }
  return tensors;
}

void Engine::touch() {
  for (HostView<float>& view : state_views_) view.give_back();
  state_views_.clear();
  for (const auto& parameter : model_.parameters().here()) parameter->touch();
}

}  // namespace switchyard
