// What lies on a device, as the host sees it: on the CPU the memory itself, elsewhere a copy.
#pragma once

#include "comm/device/device.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

enum class HostAccess { Read, ReadWrite, Write };  // Write: what is there before does not matter, all of it is given

template <class T>
class HostView {
 public:
  // ReadWrite and Write: what the host has changed is there again once give_back() has been called.
  HostView(Device& device, T* memory, std::int64_t count, HostAccess access = HostAccess::Read)
      : device_(&device), memory_(memory), count_(count), access_(access), data_(memory) {
    if (device.kind() == DeviceKind::Cpu) return;
    copy_.resize(usize(count));
    data_ = copy_.data();
    if (access != HostAccess::Write) device.copy_to_host(data_, memory, bytes(), device.stream());
  }
  HostView(HostView&&) noexcept = default;
  HostView& operator=(HostView&&) noexcept = default;
  HostView(const HostView&) = delete;
  HostView& operator=(const HostView&) = delete;

  T* data() const { return data_; }
  std::span<T> span() const { return {data_, usize(count_)}; }
  T& operator[](std::int64_t i) const { return data_[i]; }

  void give_back() {
    if (data_ == memory_ || access_ == HostAccess::Read) return;
    device_->copy_from_host(memory_, data_, bytes(), device_->stream());
  }

 private:
  Bytes bytes() const { return Bytes(count_ * static_cast<std::int64_t>(sizeof(T))); }

  Device* device_;
  T* memory_;
  std::int64_t count_;
  HostAccess access_;
  std::vector<T> copy_;
  T* data_;
};

}  // namespace switchyard
