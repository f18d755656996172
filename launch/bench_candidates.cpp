#include "launch/bench_candidates.h"

#include "comm/device/device.h"
#include "comm/exchange/scratch.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace switchyard {
namespace {

float factor_of(std::int32_t expert) {
  return static_cast<float>(expert % 3 + 1);
}

// row *= factor, or sum += factor * row
void scale(float* row, std::int64_t width, float factor) {
  for (std::int64_t c = 0; c < width; ++c) row[c] *= factor;
}
void add_scaled(const float* row, std::int64_t width, float factor, float* sum) {
  for (std::int64_t c = 0; c < width; ++c) sum[c] += factor * row[c];
}

class SlotsCandidate final : public ExchangeCandidate {
 public:
  explicit SlotsCandidate(const ExchangeTask& task) : task_(task), top_k_(isize(task.slots.size()) / task.tokens) {}

  const char* name() const override { return "MPI_Alltoallv of slots"; }
  const char* key() const override { return "slots"; }

  void plan() override {
    const std::size_t ranks = usize(task_.group.size());
    counts_.assign(ranks, 0);
    for (const Slot& slot : task_.slots) ++counts_[usize(slot.rank.value())];
    std::vector<std::int64_t> next(ranks, 0);
    std::exclusive_scan(counts_.begin(), counts_.end(), next.begin(), std::int64_t{0});
    row_of_.resize(task_.slots.size());
    place_of_.resize(task_.slots.size());
    std::vector<Meta> meta(task_.slots.size());
    for (std::size_t i = 0; i < task_.slots.size(); ++i) {
      const Slot& slot = task_.slots[i];
      const std::int64_t place = next[usize(slot.rank.value())]++;
      place_of_[i] = place;
      row_of_[usize(place)] = slot.row;
      meta[usize(place)] = {slot.tag, slot.scalar};
    }

    received_counts_.resize(ranks);
    task_.group.transport().all_to_all(counts_.data(), received_counts_.data(), 1);
    meta_.resize(usize(std::accumulate(received_counts_.begin(), received_counts_.end(), std::int64_t{0})));
    task_.group.transport().all_to_all_rows(meta.data(), counts_, meta_.data(), received_counts_, Bytes(sizeof(Meta)));
    for (std::size_t r = 0; r < ranks; ++r) {
      bytes_to(r).metadata += isize(sizeof(std::int64_t)) + counts_[r] * isize(sizeof(Meta));
    }
    received_.resize(meta_.size() * usize(task_.width));
  }

  void dispatch(const float* rows, Wire wire) override {
    const std::int64_t row_bytes = wire_row_bytes(wire, task_.width);
    std::byte* const packed = grown(sent_, isize(row_of_.size()) * row_bytes);
    encode_rows(wire, rows, row_of_, task_.width, packed);
    std::byte* const arrived = in_place(wire, received_.data(), isize(meta_.size()), coded_);
    task_.group.transport().all_to_all_rows(packed, counts_, arrived, received_counts_, Bytes(row_bytes));
    if (wire != Wire::F32) decode_rows(wire, arrived, isize(meta_.size()), task_.width, received_.data());
    for (std::size_t r = 0; r < counts_.size(); ++r) bytes_to(r).rows += counts_[r] * row_bytes;
  }

  void work() override {
    for (std::size_t i = 0; i < meta_.size(); ++i) {
      scale(received_.data() + isize(i) * task_.width, task_.width, factor_of(meta_[i].expert));
    }
  }

  void combine(float* rows, Wire wire) override {
    const std::int64_t row_bytes = wire_row_bytes(wire, task_.width);
    std::byte* const worked = in_place(wire, received_.data(), isize(meta_.size()), coded_);
    if (wire != Wire::F32) encode_rows(wire, received_.data(), isize(meta_.size()), task_.width, worked);
    std::byte* const back = grown(sent_, isize(row_of_.size()) * row_bytes);
    task_.group.transport().all_to_all_rows(worked, received_counts_, back, counts_, Bytes(row_bytes));
    for (std::size_t r = 0; r < counts_.size(); ++r) bytes_to(r).rows += received_counts_[r] * row_bytes;
#pragma omp parallel for schedule(static) if (task_.tokens * top_k_ * task_.width > parallel_floats)
    for (std::int64_t t = 0; t < task_.tokens; ++t) {
      float* const sum = rows + t * task_.width;
      std::fill_n(sum, task_.width, 0.0f);
      for (std::int64_t k = 0; k < top_k_; ++k) {
        add_decoded(wire, back + place_of_[usize(t * top_k_ + k)] * row_bytes, task_.width, sum);
      }
    }
  }

  ExchangeTraffic take_traffic() override {
    return std::exchange(traffic_, {});
  }

 private:
  struct Meta {
    std::int32_t expert;
    float weight;
  };

  // Memory grows to the largest size asked for.
  static std::byte* grown(std::vector<std::byte>& memory, std::int64_t bytes) {
    if (isize(memory.size()) < bytes) memory.resize(usize(bytes));
    return memory.data();
  }
  // Where rows lie as they travel: fp32 needs no other place.
  std::byte* in_place(Wire wire, float* rows, std::int64_t count, std::vector<std::byte>& coded) const {
    return wire == Wire::F32 ? reinterpret_cast<std::byte*>(rows)
                             : grown(coded, count * wire_row_bytes(wire, task_.width));
  }
  ExchangeBytes& bytes_to(std::size_t rank) {
    const std::size_t me = usize(task_.group.rank().value());
    if (rank == me) return traffic_.to_self;
    return task_.node_of[rank] == task_.node_of[me] ? traffic_.inside_node : traffic_.across_nodes;
  }

  const ExchangeTask& task_;
  std::int64_t top_k_;
  std::vector<std::int64_t> counts_;           // [ranks]
  std::vector<std::int64_t> received_counts_;  // [ranks]
  std::vector<std::int32_t> row_of_;           // by place among what is sent
  std::vector<std::int64_t> place_of_;         // by slot
  std::vector<Meta> meta_;                     // of what was received
  std::vector<float> received_;
  std::vector<std::byte> sent_;
  std::vector<std::byte> coded_;
  ExchangeTraffic traffic_;
};

class OwnCandidate final : public ExchangeCandidate {
 public:
  OwnCandidate(const ExchangeTask& task, std::unique_ptr<Exchange> exchange, const char* name)
      : task_(task), exchange_(std::move(exchange)), name_(name) {}

  const char* name() const override { return name_; }
  const char* key() const override { return exchange_->name(); }

  void plan() override {
    plan_ = exchange_->plan(task_.tokens, task_.slots, {.chunks = task_.chunks});
    received_.resize(plan_.pieces.size());
    for (std::size_t p = 0; p < received_.size(); ++p) {
      received_[p].resize(usize(plan_.pieces[p].received_rows() * task_.width));
    }
  }

  void dispatch(const float* rows, Wire wire) override {
    for (std::size_t p = 0; p < received_.size(); ++p) {
      exchange_->dispatch(plan_, p, rows, task_.width, wire, received_[p].data());
    }
  }

  void work() override {
    worked_.resize(received_.size());
    for (std::size_t p = 0; p < received_.size(); ++p) {
      const PlanPiece& piece = plan_.pieces[p];
      const bool singly = task_.numerics == Numerics::Reproducible;
      std::vector<float>& worked = worked_[p];
      worked.assign(usize((singly ? piece.received_slots() : piece.received_rows()) * task_.width), 0.0f);
      for (std::size_t s = 0; s < piece.received.size(); ++s) {
        const ReceivedSlot& slot = piece.received[s];
        const std::int64_t place = singly ? isize(s) : slot.row;
        add_scaled(received_[p].data() + slot.row * task_.width, task_.width, factor_of(slot.tag),
                   worked.data() + place * task_.width);
      }
    }
  }

  void combine(float* rows, Wire wire) override {
    const auto combine_piece =
        task_.numerics == Numerics::Reproducible ? &Exchange::combine_slots : &Exchange::combine_rows;
    for (std::size_t p = 0; p < worked_.size(); ++p) {
      (exchange_.get()->*combine_piece)(plan_, p, worked_[p].data(), task_.width, wire, nullptr, rows, nullptr);
    }
  }

  ExchangeTraffic take_traffic() override { return exchange_->take_traffic(); }

 private:
  const ExchangeTask& task_;
  std::unique_ptr<Exchange> exchange_;
  const char* name_;
  Plan plan_;
  std::vector<std::vector<float>> received_;  // by piece
  std::vector<std::vector<float>> worked_;
};

}  // namespace

std::unique_ptr<ExchangeCandidate> make_slots_candidate(const ExchangeTask& task) {
  return std::make_unique<SlotsCandidate>(task);
}

std::unique_ptr<ExchangeCandidate> make_exchange_candidate(const ExchangeTask& task, std::unique_ptr<Exchange> exchange,
                                                           const char* name) {
  return std::make_unique<OwnCandidate>(task, std::move(exchange), name);
}

}  // namespace switchyard
