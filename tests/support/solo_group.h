// A group of one rank without MPI, for unit tests of what is collective.
#pragma once

#include "comm/group/group.h"

#include <cstring>
#include <memory>

namespace switchyard::test {

class SoloTransport : public Transport {
 public:
  Rank rank() const override { return Rank(0); }
  int size() const override { return 1; }
  void exchange(std::span<const SendPart> sends, std::span<const ReceivePart> receives) override {
    for (std::size_t i = 0; i < sends.size(); ++i) {
      std::memcpy(receives[i].data, sends[i].data, usize(sends[i].size.value()));
    }
  }
  void all_to_all(const std::int64_t* values, std::int64_t* result, std::int64_t per_rank) override {
    std::memcpy(result, values, usize(per_rank) * sizeof *values);
  }
  void all_reduce(void*, std::int64_t, DType, ReduceOp) override {}
  void reduce_scatter(const void* in, void* out, std::int64_t per_rank, DType dtype, ReduceOp) override {
    std::memcpy(out, in, usize(per_rank * size_of(dtype)));
  }
  void all_gather_in_place(void*, Bytes) override {}
  void broadcast(void*, Bytes, Rank) override {}
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    return {{mine.begin(), mine.end()}};
  }
  void barrier() override {}
  std::unique_ptr<Transport> split(int color, int) override {
    return color < 0 ? nullptr : std::make_unique<SoloTransport>();
  }
  std::unique_ptr<Transport> split_by_node() override { return std::make_unique<SoloTransport>(); }
};

inline Group solo_group() {
  return Group(std::make_unique<SoloTransport>());
}

}  // namespace switchyard::test
