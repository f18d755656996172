// Waits for a CUDA device that somebody watches.
#include "comm/device/wait_watch.h"
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

}  // namespace
}  // namespace switchyard::test
