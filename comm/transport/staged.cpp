// The copies go on the exchange's stream, so that what is sent is what the main stream had made when it was posted, and
// so that the main stream has to wait for what comes, as with any other transport.
#include "comm/transport/device_transport.h"

#include <deque>
#include <utility>
#include <vector>

namespace switchyard {
namespace {

class StagedTransport final : public DeviceTransport {
 public:
  StagedTransport(Transport& transport, Device& device) : transport_(transport), device_(device) {}

  const char* name() const override { return "mpi"; }

  Ticket post(std::span<const SendPart> sends, std::span<const ReceivePart> receives,
              std::function<void()> first) override {
    device_.exchange_stream().follow(device_.stream());
    posted_.push_back({{sends.begin(), sends.end()}, {receives.begin(), receives.end()}, std::move(first)});
    return ended_ + isize(posted_.size());
  }

  void wait(Ticket ticket) override {
    if (ticket > ended_) {
      const OnStream scope(device_, device_.exchange_stream());
      for (; ticket > ended_; ++ended_) {
        require(!posted_.empty(), "exchange {} of {} is waited for", ticket, ended_);
        const Posted now = std::move(posted_.front());
        posted_.pop_front();
        if (now.first) now.first();
        carry(now);
      }
    }
    device_.stream().follow(device_.exchange_stream());
  }

 private:
  struct Posted {
    std::vector<SendPart> sends;
    std::vector<ReceivePart> receives;
    std::function<void()> first;
  };

  bool is_self(Rank rank) const { return rank == transport_.rank(); }

  void carry(const Posted& posted) {
    Stream& stream = device_.stream();
    std::int64_t bytes = 0;
    for (const SendPart& part : posted.sends) bytes += is_self(part.to) ? 0 : part.size.value();
    for (const ReceivePart& part : posted.receives) bytes += is_self(part.from) ? 0 : part.size.value();
    host_.resize(usize(bytes));
    std::byte* next = host_.data();
    std::vector<SendPart> host_sends;
    std::vector<ReceivePart> host_receives;
    std::vector<SendPart> own;
    for (const SendPart& part : posted.sends) {
      if (is_self(part.to)) {
        own.push_back(part);
        continue;
      }
      device_.copy_to_host(next, part.data, part.size, stream);
      host_sends.push_back({part.to, next, part.size});
      next += part.size.value();
    }
    std::size_t copied = 0;
    for (const ReceivePart& part : posted.receives) {
      if (is_self(part.from)) {
        require(copied < own.size() && own[copied].size == part.size,
                "rank {} expects a message of {} bytes from itself that it does not send",
                transport_.world_rank(transport_.rank()), part.size.value());
        device_.copy(part.data, own[copied++].data, part.size, stream);
        continue;
      }
      host_receives.push_back({part.from, next, part.size});
      next += part.size.value();
    }
    require(copied == own.size(), "rank {} sends itself a message that it does not expect",
            transport_.world_rank(transport_.rank()));
    transport_.exchange(host_sends, host_receives);
    std::size_t arrived = 0;
    for (const ReceivePart& part : posted.receives) {
      if (is_self(part.from)) continue;
      device_.copy_from_host(part.data, host_receives[arrived++].data, part.size, stream);
    }
  }

  Transport& transport_;
  Device& device_;
  std::vector<std::byte> host_;
  std::deque<Posted> posted_;
  Ticket ended_ = 0;
};

}  // namespace

std::unique_ptr<DeviceTransport> make_staged_transport(Transport& transport, Device& device) {
  return std::make_unique<StagedTransport>(transport, device);
}

}  // namespace switchyard
