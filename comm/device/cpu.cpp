#include "comm/device/device.h"

#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

namespace switchyard {
namespace {

constexpr std::int64_t alignment = 64;  // a cache line, and the widest vector register
constexpr std::int64_t small_page = 4 << 10;
constexpr std::int64_t huge_page = 2 << 20;
constexpr std::int64_t large = 256 << 10;

std::int64_t whole_pages(std::int64_t bytes) {
  return (bytes + small_page - 1) / small_page * small_page;
}

void* small_block(std::int64_t bytes) {
  void* memory = nullptr;
  return ::posix_memalign(&memory, usize(alignment), usize(bytes)) == 0 ? memory : nullptr;
}

// Large blocks come from the system and go back to it: malloc would keep the room of some. The largest are asked for in
// huge pages, because the tiles of a product step through memory by whole rows, and with small pages nearly every row
// of a tile costs a look-up of its address.
void* large_block(std::int64_t bytes) {
  const std::int64_t size = whole_pages(bytes);
  const std::int64_t slack = bytes < huge_page ? 0 : huge_page;  // to begin at a huge page
  void* mapped = ::mmap(nullptr, usize(size + slack), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED || slack == 0) return mapped == MAP_FAILED ? nullptr : mapped;
  auto* const begin = static_cast<std::byte*>(mapped);
  const auto past = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(begin) % huge_page);
  const std::int64_t before = past == 0 ? 0 : huge_page - past;
  if (before > 0) ::munmap(begin, usize(before));
  if (before < slack) ::munmap(begin + before + size, usize(slack - before));
  // A hint: where there are no huge pages to give, the block is as good without. What lies beyond the last whole one
  // stays in small pages, so that a block takes no more memory than it asked for.
  ::madvise(begin + before, usize(bytes / huge_page * huge_page), MADV_HUGEPAGE);
  return begin + before;
}

class CpuStream final : public Stream {
 public:
  void synchronize() override {}
  void follow(Stream&) override {}
};

class CpuDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::Cpu; }
  std::string name() const override { return "cpu"; }

  void* allocate(Bytes bytes) override {
    require(bytes.value() >= 0, "asked for a memory block of {} bytes", bytes.value());
    if (bytes.value() == 0) return nullptr;
    void* memory = bytes.value() < large ? small_block(bytes.value()) : large_block(bytes.value());
    require(memory != nullptr, "no memory for {} bytes ({:.1f} MiB) on the cpu", bytes.value(),
            static_cast<double>(bytes.value()) / (1 << 20));
    return memory;
  }
  void release(void* memory, Bytes bytes) noexcept override {
    if (bytes.value() < large) {
      std::free(memory);
    } else {
      ::munmap(memory, usize(whole_pages(bytes.value())));
    }
  }

  void fill(void* memory, int byte, Bytes bytes, Stream&) override {
    if (bytes.value() > 0) std::memset(memory, byte, usize(bytes.value()));
  }
  void copy_to_host(void* host, const void* memory, Bytes bytes, Stream&) override {
    if (bytes.value() > 0) std::memcpy(host, memory, usize(bytes.value()));
  }
  void copy_from_host(void* memory, const void* host, Bytes bytes, Stream&) override {
    if (bytes.value() > 0) std::memcpy(memory, host, usize(bytes.value()));
  }
  void copy(void* to, const void* from, Bytes bytes, Stream&) override {
    if (bytes.value() > 0) std::memcpy(to, from, usize(bytes.value()));
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
