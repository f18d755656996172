#include "comm/transport/device_transport.h"

#include <vector>

namespace switchyard {
namespace {

class StagedTransport final : public DeviceTransport {
 public:
  StagedTransport(Transport& transport, Device& device) : transport_(transport), device_(device) {}

  const char* name() const override { return "mpi"; }

  void exchange(std::span<const SendPart> sends, std::span<const ReceivePart> receives) override {
    std::int64_t bytes = 0;
    for (const SendPart& part : sends) bytes += is_self(part.to) ? 0 : part.size.value();
    for (const ReceivePart& part : receives) bytes += is_self(part.from) ? 0 : part.size.value();
    host_.resize(usize(bytes));
    std::byte* next = host_.data();
    std::vector<SendPart> host_sends;
    std::vector<ReceivePart> host_receives;
    std::vector<SendPart> own;
    for (const SendPart& part : sends) {
      if (is_self(part.to)) {
        own.push_back(part);
        continue;
      }
      device_.copy_to_host(next, part.data, part.size, device_.stream());
      host_sends.push_back({part.to, next, part.size});
      next += part.size.value();
    }
    std::size_t copied = 0;
    for (const ReceivePart& part : receives) {
      if (is_self(part.from)) {
        require(copied < own.size() && own[copied].size == part.size,
                "rank {} expects a message of {} bytes from itself that it does not send",
                transport_.world_rank(transport_.rank()), part.size.value());
        device_.copy(part.data, own[copied++].data, part.size, device_.stream());
        continue;
      }
      host_receives.push_back({part.from, next, part.size});
      next += part.size.value();
    }
    require(copied == own.size(), "rank {} sends itself a message that it does not expect",
            transport_.world_rank(transport_.rank()));
    transport_.exchange(host_sends, host_receives);
    std::size_t arrived = 0;
    for (const ReceivePart& part : receives) {
      if (is_self(part.from)) continue;
      device_.copy_from_host(part.data, host_receives[arrived++].data, part.size, device_.stream());
    }
  }

 private:
  bool is_self(Rank rank) const { return rank == transport_.rank(); }

  Transport& transport_;
  Device& device_;
  std::vector<std::byte> host_;
};

}  // namespace

std::unique_ptr<DeviceTransport> make_staged_transport(Transport& transport, Device& device) {
  return std::make_unique<StagedTransport>(transport, device);
}

}  // namespace switchyard
