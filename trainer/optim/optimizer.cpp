#include "trainer/optim/optimizer.h"

#include "comm/reduce/gradients.h"
#include "comm/reduce/parts.h"
#include "layers/ops/adamw.h"

namespace switchyard {
namespace {

std::int64_t blocks_of(std::int64_t elements) {
  return (elements + squares_block - 1) / squares_block;
}

// Sums gradients over a set's ranks: parts of them where there are any.
template <class T>
void sum_over(const Group& group, const std::vector<std::span<T>>& gradients, const std::vector<Range>& parts) {
  if (parts.empty()) {
    sum_gradients(group, gradients);
  } else {
    sum_parts(group, gradients, parts);
  }
}

}  // namespace

Optimizer::Optimizer(ParameterList& parameters, std::vector<CopySet> sets, std::int64_t zero, Device& device)
    : parameters_(parameters), first_block_(parameters.here().size()) {
  for (CopySet& set : sets) {
    if (set.parameters.empty()) continue;
    std::vector<std::int64_t> sizes;
    Range mine{0, 0};
    Shared shared{.set = std::move(set), .parts = {}, .first_block = blocks_};
    for (const std::size_t i : shared.set.parameters) {
      sizes.push_back(parameters.here()[i]->size());
      mine.end += sizes.back();
      first_block_[i] = blocks_;
      blocks_ += blocks_of(sizes.back());
    }
    shared.blocks = blocks_ - shared.first_block;
    if (zero == 1 && shared.set.ranks() > 1) {
      shared.parts = cut_at_blocks(sizes, squares_block, shared.set.ranks());
      mine = shared.parts[usize(shared.set.group->rank().value())];
    }
    for (Piece piece : pieces_in(sizes, mine)) {
      piece.parameter = shared.set.parameters[piece.parameter];
      const Bytes bytes(piece.count * size_of(DType::F32));
      states_.push_back({piece, !shared.parts.empty(), Buffer(device, bytes), Buffer(device, bytes)});
      states_.back().first.zero();
      states_.back().second.zero();
    }
    sets_.push_back(std::move(shared));
  }
}

void Optimizer::sum_gradients() {
  for (const Shared& shared : sets_) {
    if (shared.set.ranks() == 1) continue;
    std::vector<std::span<std::int64_t>> exact;
    std::vector<std::span<float>> plain;
    for (const std::size_t i : shared.set.parameters) {
      const GradientSum& gradient = parameters_.here()[i]->gradient();
      if (gradient.exact != nullptr) {
        exact.emplace_back(gradient.exact, usize(gradient.size));
      } else {
        plain.emplace_back(gradient.plain, usize(gradient.size));
      }
    }
    // All of one kind: the numerics are the run's.
    if (plain.empty()) {
      sum_over(*shared.set.group, exact, shared.parts);
    } else {
      sum_over(*shared.set.group, plain, shared.parts);
    }
  }
}

std::vector<double> Optimizer::gradient_squares(double scale) const {
  std::vector<double> blocks(usize(blocks_), 0.0);
  for (const State& state : states_) {
    const Piece& piece = state.piece;
    const GradientSum gradient = parameters_.here()[piece.parameter]->gradient().part(piece.offset, piece.count);
    double* const sums = &blocks[usize(first_block_[piece.parameter] + piece.offset / squares_block)];
    if (gradient.exact != nullptr) {
      squares_by_block(gradient.exact, scale, gradient.size, sums);
    } else {
      squares_by_block(gradient.plain, scale, gradient.size, sums);
    }
  }
  for (const Shared& shared : sets_) {
    if (shared.parts.empty()) continue;  // one contributor a block otherwise: the sum is exact
    shared.set.group->sum(std::span<double>(blocks).subspan(usize(shared.first_block), usize(shared.blocks)));
  }
  std::vector<double> squares;
  squares.reserve(first_block_.size());
  for (std::size_t i = 0; i < first_block_.size(); ++i) {
    double total = 0;
    const std::int64_t end = first_block_[i] + blocks_of(parameters_.here()[i]->size());
    for (std::int64_t block = first_block_[i]; block < end; ++block) total += blocks[usize(block)];
    squares.push_back(total);
  }
  return squares;
}

void Optimizer::update(const TrainConfig& train, double lr, double gradient_scale, std::int64_t update) {
  for (const State& state : states_) {
    const Piece& piece = state.piece;
    Parameter& parameter = *parameters_.here()[piece.parameter];
    const AdamWStep step{.lr = lr,
                         .beta1 = train.beta1,
                         .beta2 = train.beta2,
                         .eps = train.eps,
                         .weight_decay = parameter.decays() ? train.weight_decay : 0.0,
                         .step = update};
    const GradientSum gradient = parameter.gradient().part(piece.offset, piece.count);
    float* const value = parameter.value().f32() + piece.offset;
    if (gradient.exact != nullptr) {
      adamw(step, gradient.exact, gradient_scale, piece.count, value, state.first_moment(), state.second_moment());
    } else {
      adamw(step, gradient.plain, gradient_scale, piece.count, value, state.first_moment(), state.second_moment());
    }
    parameter.touch();
  }
}

void Optimizer::gather_values() {
  for (const Shared& shared : sets_) {
    if (shared.parts.empty()) continue;
    std::vector<std::span<float>> values;
    for (const std::size_t i : shared.set.parameters) {
      Parameter& parameter = *parameters_.here()[i];
      values.emplace_back(parameter.value().f32(), usize(parameter.size()));
      parameter.touch();
    }
    gather_parts(*shared.set.group, values, shared.parts);
  }
}

void Optimizer::zero_gradients() {
  for (const auto& parameter : parameters_.here()) parameter->zero_gradient();
}

bool Optimizer::take_non_finite() {
  bool any = false;
  for (const auto& parameter : parameters_.here()) {
    any = any || parameter->non_finite();
    parameter->clear_non_finite();
  }
  return any;
}

Bytes Optimizer::state_size() const {
  std::int64_t bytes = 0;
  for (const State& state : states_) bytes += state.first.size().value() + state.second.size().value();
  return Bytes(bytes);
}

}  // namespace switchyard
