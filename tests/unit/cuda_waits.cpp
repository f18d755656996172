// Waits for a CUDA device that somebody watches, and waits of its streams for each other.
#include "comm/device/wait_watch.h"
#include "comm/transport/device_transport.h"
#include "comm/transport/self.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace switchyard::test {
namespace {

// Counts, and finds a fault in one of its looks.
class Watch final : public WaitWatch {
 public:
  explicit Watch(std::optional<std::int64_t> fault_at = {}) : fault_at_(fault_at) { begin_watch(*this); }
  ~Watch() override { end_watch(*this); }
  void look() override {
    if (looks++ == fault_at_) fail(ErrorKind::Runtime, "rank 3 is gone");
  }
  void wait_ended() noexcept override { ++waits; }

  std::int64_t looks = 0;
  std::int64_t waits = 0;

 private:
  std::optional<std::int64_t> fault_at_;
};

// Bytes that go to the device and come back, through several pieces of the staging memory.
std::vector<std::uint8_t> there_and_back(Device& device, std::int64_t size) {
  std::vector<std::uint8_t> bytes(usize(size));
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 7);
  const Buffer memory(device, Bytes(size));
  device.copy_from_host(memory.data(), bytes.data(), memory.size(), device.stream());
  device.stream().synchronize();
  std::vector<std::uint8_t> back(bytes.size());
  device.copy_to_host(back.data(), memory.data(), memory.size(), device.stream());
  CHECK(back == bytes);
  return back;
}

TEST_CASE("waits are watched, and do what they do otherwise") {
  Device& device = cuda_device();
  CHECK_FALSE(waits_are_watched());
  const auto unwatched = there_and_back(device, 9 << 20);
  Watch watch;
  Watch other;
  CHECK(waits_are_watched());
  CHECK(there_and_back(device, 9 << 20) == unwatched);
  CHECK(watch.waits > 2);
  CHECK(watch.looks >= watch.waits);  // once when the device is done, at least
  CHECK(other.looks == watch.looks);
}

TEST_CASE("a wait ends where a watch finds that it would be in vain") {
  Device& device = cuda_device();
  const Buffer memory(device, Bytes(64));
  {
    Watch watch(0);
    device.fill(memory.data(), 1, memory.size(), device.stream());
    CHECK_THROWS_WITH(device.stream().synchronize(), "rank 3 is gone");
    CHECK(watch.waits == 1);
    device.stream().synchronize();  // the fault was told: nobody finds it again
  }
  CHECK_FALSE(waits_are_watched());
  there_and_back(device, 100);
}

// On the emulated device, what a stream has not been waited for has not been done: there a wait that is left out shows.
bool shows_faults(const Device& device) {
  return device.model() == "emulated on the CPU";
}

class Bytes16 {
 public:
  Bytes16(Device& device, int byte) : memory_(device, Bytes(16)) {
    device.fill(memory_.data(), byte, memory_.size(), device.stream());
  }
  void* at() const { return memory_.data(); }
  void fill(int byte) { memory_.device()->fill(at(), byte, Bytes(16), memory_.device()->stream()); }
  // What the main stream finds there.
  int seen() const {
    std::uint8_t byte = 0;
    memory_.device()->copy_to_host(&byte, at(), Bytes(1), memory_.device()->stream());
    return byte;
  }

 private:
  Buffer memory_;
};

TEST_CASE("one stream follows another") {
  Device& device = cuda_device();
  Stream& main = device.stream();
  Stream& other = device.exchange_stream();
  REQUIRE(&main != &other);
  Bytes16 x(device, 1), y(device, 0);
  {
    const OnStream scope(device, other);
    CHECK(&device.stream() == &other);
    device.copy(y.at(), x.at(), Bytes(16), device.stream());
  }
  CHECK(&device.stream() == &main);
  if (shows_faults(device)) CHECK(y.seen() == 0);
  main.follow(other);
  CHECK(y.seen() == 1);

  // The other one has its turn only after what the main one had been given; what comes later may be first.
  x.fill(2);
  other.follow(main);
  device.copy(y.at(), x.at(), Bytes(16), other);
  if (shows_faults(device)) {
    x.fill(3);  // planted fault: it is still read
    main.follow(other);
    CHECK(y.seen() == 3);
  } else {
    main.follow(other);
    x.fill(3);
    CHECK(y.seen() == 2);
  }
}

TEST_CASE("an exchange takes what has been made when it is posted, and is there when it has been waited for") {
  Device& device = cuda_device();
  const auto alone = make_self_transport();
  const auto transport = make_staged_transport(*alone, device);
  Bytes16 x(device, 1), y(device, 0), z(device, 0), made(device, 0);
  const auto post = [&](Bytes16& from, Bytes16& to, std::function<void()> first = {}) {
    const SendPart send{Rank(0), from.at(), Bytes(16)};
    const ReceivePart receive{Rank(0), to.at(), Bytes(16)};
    return transport->post(std::span(&send, 1), std::span(&receive, 1), std::move(first));
  };
  // The second passes on what the first has brought, changed on the way.
  const auto first = post(x, y);
  const auto second = post(made, z, [&] { device.copy(made.at(), y.at(), Bytes(16), device.stream()); });
  if (shows_faults(device)) CHECK(y.seen() == 0);
  transport->wait(first);
  CHECK(y.seen() == 1);
  CHECK(z.seen() == 0);
  transport->wait(second);
  CHECK(z.seen() == 1);
  transport->wait(first);  // it has been waited for
  CHECK_THROWS(transport->wait(second + 1));
  if (!shows_faults(device)) return;
  const auto third = post(x, y);
  x.fill(9);  // planted fault: it has not been sent yet
  transport->wait(third);
  CHECK(y.seen() == 9);
}

}  // namespace
}  // namespace switchyard::test
