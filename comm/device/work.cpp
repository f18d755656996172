#include "comm/device/work.h"

namespace switchyard {
namespace {

// Ops are called by one thread at a time on a device; another thread may have another device.
thread_local bool within = false;

}  // namespace

DeviceWork::DeviceWork(Device& device, std::string_view name, const WorkSize& size)
    : record_(within ? nullptr : device.record()) {
  if (record_ == nullptr) return;
  within = true;
  record_->begin(name, size);
}

DeviceWork::~DeviceWork() {
  if (record_ == nullptr) return;
  record_->end();
  within = false;
}

}  // namespace switchyard
