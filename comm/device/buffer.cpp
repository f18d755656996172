#include "comm/device/device.h"

#include <utility>

namespace switchyard {

Buffer::Buffer(Device& device, Bytes bytes) : device_(&device), data_(device.allocate(bytes)), size_(bytes) {}

Buffer::~Buffer() {
  if (data_ != nullptr) device_->release(data_, size_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, Bytes(0))) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  Buffer taken(std::move(other));  // so that moving onto oneself keeps the memory
  std::swap(device_, taken.device_);
  std::swap(data_, taken.data_);
  std::swap(size_, taken.size_);
  return *this;
}

void Buffer::zero() {
  if (data_ != nullptr) device_->fill(data_, 0, size_, device_->stream());
}

struct Device::Workspace {
  Buffer memory;
  std::int64_t moves = 0;
};

std::unique_ptr<WorkGraph> Device::capture(const std::function<void()>&) {
  return nullptr;
}

void* Device::workspace(Bytes bytes) {
  if (workspace_ == nullptr) workspace_ = std::make_shared<Workspace>();
  Buffer& memory = workspace_->memory;
  if (memory.size() < bytes) {
    stream().synchronize();  // what has been asked for before may be in use
    memory = Buffer();
    memory = Buffer(*this, bytes);
    ++workspace_->moves;
  }
  return memory.data();
}

std::int64_t Device::workspace_moves() const {
  return workspace_ == nullptr ? 0 : workspace_->moves;
}

}  // namespace switchyard
