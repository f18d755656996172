#include "comm/device/device.h"

#include <cstdlib>
#include <cstring>

namespace switchyard {
namespace {

constexpr std::int64_t alignment = 64;  // a cache line, and the widest vector register

class CpuStream final : public Stream {
 public:
  void synchronize() override {}
};

class CpuDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::Cpu; }
  std::string name() const override { return "cpu"; }

  void* allocate(Bytes bytes) override {
    require(bytes.value() >= 0, "asked for a memory block of {} bytes", bytes.value());
    if (bytes.value() == 0) return nullptr;
    const std::int64_t whole =
        (bytes.value() + alignment - 1) / alignment * alignment;  // aligned_alloc wants multiples
    void* memory = std::aligned_alloc(usize(alignment), usize(whole));
    require(memory != nullptr, "no memory for {} bytes ({:.1f} MiB) on the cpu", bytes.value(),
            static_cast<double>(bytes.value()) / (1 << 20));
    return memory;
  }
  void release(void* memory, Bytes) noexcept override { std::free(memory); }

  void fill(void* memory, int byte, Bytes bytes, Stream&) override {
    if (bytes.value() > 0) std::memset(memory, byte, usize(bytes.value()));
  }
  void copy_to_host(void* host, const void* memory, Bytes bytes, Stream&) override {
    if (bytes.value() > 0) std::memcpy(host, memory, usize(bytes.value()));
  }
  void copy_from_host(void* memory, const void* host, Bytes bytes, Stream&) override {
    if (bytes.value() > 0) std::memcpy(memory, host, usize(bytes.value()));
  }
  Stream& stream() override { return stream_; }

 private:
  CpuStream stream_;
};

}  // namespace

Device& cpu_device() {
  static CpuDevice device;  // holds nothing: when it goes, at the end of the process, does not matter
  return device;
}

}  // namespace switchyard
