#include "comm/device/device.h"

#include "tests/support/catch.h"

#include <cstdint>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

namespace switchyard {
namespace {

bool aligned(const void* memory) {
  return reinterpret_cast<std::uintptr_t>(memory) % 64 == 0;
}

template <class Work>
std::string message_of(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Counts what is taken and given back.
class CountingDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::Cpu; }
  std::string name() const override { return "counting"; }
  void* allocate(Bytes bytes) override {
    ++taken;
    held += bytes.value();
    return cpu_device().allocate(bytes);
  }
  void release(void* memory, Bytes bytes) noexcept override {
    held -= bytes.value();
    cpu_device().release(memory, bytes);
  }
  void fill(void* memory, int byte, Bytes bytes, Stream& s) override { cpu_device().fill(memory, byte, bytes, s); }
  void copy_to_host(void* to, const void* from, Bytes bytes, Stream& s) override {
    cpu_device().copy_to_host(to, from, bytes, s);
  }
  void copy_from_host(void* to, const void* from, Bytes bytes, Stream& s) override {
    cpu_device().copy_from_host(to, from, bytes, s);
  }
  void copy(void* to, const void* from, Bytes bytes, Stream& s) override { cpu_device().copy(to, from, bytes, s); }
  Stream& stream() override { return cpu_device().stream(); }

  int taken = 0;
  std::int64_t held = 0;
};

}  // namespace

TEST_CASE("the CPU device copies, fills and aligns") {
  Device& cpu = open_device("cpu");
  REQUIRE(&cpu == &cpu_device());
  REQUIRE(cpu.name() == "cpu");
  REQUIRE(cpu.kind() == DeviceKind::Cpu);
  for (const std::int64_t size : {1, 63, 64, 65, 100000}) {
    Buffer buffer(cpu, Bytes(size));
    REQUIRE(aligned(buffer.data()));
    std::vector<unsigned char> host(usize(size), 7);
    cpu.copy_from_host(buffer.data(), host.data(), Bytes(size), cpu.stream());
    std::vector<unsigned char> back(usize(size), 0);
    cpu.copy_to_host(back.data(), buffer.data(), Bytes(size), cpu.stream());
    REQUIRE(back == host);
    buffer.zero();
    cpu.stream().synchronize();
    REQUIRE(std::memcmp(buffer.data(), std::vector<unsigned char>(usize(size), 0).data(), usize(size)) == 0);
  }
}

TEST_CASE("devices that are not there are told") {
  REQUIRE_THROWS_AS(open_device("gpu"), Error);
  REQUIRE(message_of([] { open_device("cdua"); }).find("(did you mean 'cuda'?)") != std::string::npos);
  REQUIRE(message_of([] { open_device("cuda:x"); }).find("\"cuda:x\"") != std::string::npos);
  REQUIRE(message_of([] { open_device("cuda:"); }).find("\"cuda:\"") != std::string::npos);
  REQUIRE(message_of([] { open_device("cpu0"); }).find("\"cpu0\"") != std::string::npos);
  const std::string huge = message_of([] { cpu_device().allocate(Bytes(std::int64_t{1} << 60)); });
  REQUIRE(huge.find("1152921504606846976") != std::string::npos);
  REQUIRE_FALSE(message_of([] { cpu_device().allocate(Bytes(-1)); }).empty());
}

TEST_CASE("a buffer is moved, never copied, and given back once") {
  CountingDevice device;
  {
    Buffer a(device, Bytes(100));
    void* memory = a.data();
    Buffer b(std::move(a));
    REQUIRE(b.data() == memory);
    REQUIRE(b.size() == Bytes(100));
    REQUIRE(b.device() == &device);
    REQUIRE(a.data() == nullptr);  // NOLINT: what a move leaves behind is the point here
    REQUIRE(a.size() == Bytes(0));

    Buffer c(device, Bytes(50));
    c = std::move(b);
    REQUIRE(device.held == 100);
    REQUIRE(c.data() == memory);
    Buffer& same = c;
    c = std::move(same);
    REQUIRE(c.data() == memory);

    Buffer empty(device, Bytes(0));
    REQUIRE(empty.size() == Bytes(0));
    empty.zero();
  }
  REQUIRE(device.held == 0);
}

TEST_CASE("an arena gives out memory that does not overlap, and takes it back in turn") {
  CountingDevice device;
  {
    Arena arena(device, Bytes(1024));
    std::mt19937 random(3);
    for (int round = 0; round < 20; ++round) {
      const ArenaScope scope(arena);
      std::vector<std::pair<unsigned char*, std::size_t>> blocks;
      for (int i = 0; i < 40; ++i) {
        const std::size_t size = random() % 700;
        auto* memory = static_cast<unsigned char*>(arena.take(Bytes(isize(size))));
        REQUIRE(aligned(memory));
        std::memset(memory, i, size);
        blocks.emplace_back(memory, size);
        if (i == 20) {
          const ArenaScope inner(arena);
          std::memset(arena.take(Bytes(5000)), 0xee, 5000);
        }
      }
      for (std::size_t i = 0; i < blocks.size(); ++i) {
        for (std::size_t j = 0; j < blocks[i].second; ++j) REQUIRE(blocks[i].first[j] == i);
      }
    }
    REQUIRE(arena.in_use() == Bytes(0));
    REQUIRE(arena.reserved() >= Bytes(0));
    REQUIRE(arena.peak() <= Bytes(40 * 704 + 5056));

    Arena moved(std::move(arena));
    REQUIRE(aligned(moved.take(Bytes(10))));
    REQUIRE(&moved.device() == &device);
  }
  REQUIRE(device.held == 0);
}

TEST_CASE("an arena that has seen a step takes nothing more from the device") {
  CountingDevice device;
  Arena arena(device, Bytes(4096));
  const auto step = [&] {
    const ArenaScope scope(arena);
    for (int layer = 0; layer < 10; ++layer) {
      arena.take(Bytes(3000));
      const ArenaScope inner(arena);
      arena.take(Bytes(9000));
    }
  };
  step();
  step();
  const int taken = device.taken;
  step();
  step();
  REQUIRE(device.taken == taken);
  REQUIRE(arena.reserved().value() < arena.peak().value() + 4096);

  SECTION("planted fault: a step that needs more is seen") {
    const ArenaScope scope(arena);
    arena.take(Bytes(1 << 20));
    REQUIRE(device.taken > taken);
  }
}

TEST_CASE("an arena refuses what cannot be") {
  REQUIRE_FALSE(message_of([] { Arena(cpu_device(), Bytes(0)); }).empty());
  Arena arena(cpu_device(), Bytes(64));
  REQUIRE_FALSE(message_of([&] { arena.take(Bytes(-1)); }).empty());
  const Arena::Mark before = arena.mark();
  arena.take(Bytes(10));
  const Arena::Mark after = arena.mark();
  arena.release(before);
  REQUIRE_FALSE(message_of([&] { arena.release(after); }).empty());
}

}  // namespace switchyard
