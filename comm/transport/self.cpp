#include "comm/transport/self.h"

#include "comm/base/error.h"
#include "comm/device/device.h"
#include "comm/group/environment.h"

#include <algorithm>
#include <cstring>

namespace switchyard {
namespace {

class NoMessages final : public Messages {
 public:
  bool poll(std::vector<int>&) override { return true; }
  void wait() override {}
};

class OwnMemory final : public SharedMemory {
 public:
  explicit OwnMemory(Bytes size) : memory_(cpu_device(), size) {}
  std::byte* of(Rank) const override { return static_cast<std::byte*>(memory_.data()); }
  Bytes size() const override { return memory_.size(); }

 private:
  Buffer memory_;
};

class SelfTransport final : public Transport {
 public:
  Rank rank() const override { return Rank(0); }
  int size() const override { return 1; }
  int world_rank(Rank) const override { return launched_as().rank; }

  void exchange(std::span<const SendPart> sends, std::span<const ReceivePart> receives) override {
    require(sends.size() == receives.size(), "{} messages to oneself, but {} are received", sends.size(),
            receives.size());
    for (std::size_t i = 0; i < sends.size(); ++i) {
      require(sends[i].to == Rank(0) && receives[i].from == Rank(0), "a message to another rank in a group of one");
      require(sends[i].size == receives[i].size, "a message of {} bytes to oneself is received as {}",
              sends[i].size.value(), receives[i].size.value());
      if (sends[i].size > Bytes(0)) std::memmove(receives[i].data, sends[i].data, usize(sends[i].size.value()));
    }
  }
  std::unique_ptr<Messages> start(std::span<const SendPart> sends, std::span<const ReceivePart> receives) override {
    require(sends.empty() && receives.empty(), "a message to another rank in a group of one");
    return std::make_unique<NoMessages>();
  }
  void all_to_all(const std::int64_t* values, std::int64_t* result, std::int64_t per_rank) override {
    std::copy_n(values, per_rank, result);
  }
  void all_to_all_rows(const void* rows, std::span<const std::int64_t> counts, void* received,
                       std::span<const std::int64_t> received_counts, Bytes row) override {
    require(counts[0] == received_counts[0], "{} rows to oneself are received as {}", counts[0], received_counts[0]);
    if (counts[0] > 0) std::memcpy(received, rows, usize(counts[0] * row.value()));
  }
  void all_reduce(void*, std::int64_t, DType, ReduceOp) override {}
  void reduce_scatter(const void* in, void* out, std::int64_t per_rank, DType dtype, ReduceOp) override {
    if (per_rank > 0) std::memcpy(out, in, usize(per_rank * size_of(dtype)));
  }
  void all_gather_in_place(void*, Bytes) override {}
  void broadcast(void*, Bytes, Rank root) override {
    require(root == Rank(0), "broadcast from rank {} in a group of one", root.value());
  }
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    return {std::vector<std::byte>(mine.begin(), mine.end())};
  }
  void barrier() override {}
  std::unique_ptr<Transport> split(int color, int) override { return color < 0 ? nullptr : make_self_transport(); }
  std::unique_ptr<Transport> split_by_node() override { return make_self_transport(); }
  std::unique_ptr<SharedMemory> share(Bytes each) override { return std::make_unique<OwnMemory>(each); }
  void get_on() override {}
};

}  // namespace

std::unique_ptr<Transport> make_self_transport() {
  return std::make_unique<SelfTransport>();
}

}  // namespace switchyard
