#include "comm/device/device.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

namespace switchyard {
namespace {

constexpr std::int64_t alignment = 64;  // a cache line, and the widest vector register
// Blocks of at least this size are asked for in huge pages: the tiles of a product step through memory by whole rows, and
// with small pages nearly every row of a tile costs a look-up of its address.
constexpr std::int64_t huge_page = 2 << 20;

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
    const bool huge = bytes.value() >= huge_page;
    const std::int64_t unit = huge ? huge_page : alignment;
    void* memory = nullptr;
    const int error = ::posix_memalign(&memory, usize(unit), usize(bytes.value()));
    require(error == 0, "no memory for {} bytes ({:.1f} MiB) on the cpu", bytes.value(),
            static_cast<double>(bytes.value()) / (1 << 20));
    // A hint: where the system has no huge pages to give, the block is as good without. The rest beyond the last whole one
    // stays in small pages, so that a block takes no more memory than it asked for.
    if (huge) ::madvise(memory, usize(bytes.value() / huge_page * huge_page), MADV_HUGEPAGE);
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
