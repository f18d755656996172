// What a device's main stream did and how long each kind of work took there: for measurements, off unless asked for.
//
//   const DeviceWork work(device, "rms_norm", {.bytes = bytes_of(x, weight, y)});
//   cuda::rms_norm(...);
//
// Nothing is recorded on the CPU, whose time the phase clock tells (comm/base/timers.h).
#pragma once

#include "comm/device/device.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace switchyard {

struct WorkSize {
  double flops = 0;  // multiply-adds, times 2
  double bytes = 0;  // that must be read and written at least
};

// All calls of one name.
struct WorkTimes {
  std::string_view name;
  std::int64_t calls = 0;
  double seconds = 0;
  WorkSize size;
};

class WorkRecord {
 public:
  virtual ~WorkRecord() = default;
  // Work on the main stream between the two belongs to `name`, which outlives the record. They do not nest.
  virtual void begin(std::string_view name, const WorkSize& size) = 0;
  virtual void end() = 0;
  // All since the last call, once it is done; the most time first.
  virtual std::vector<WorkTimes> take() = 0;
};

// One op's work, from construction to destruction. What other ops do within it belongs to it.
class DeviceWork {
 public:
  DeviceWork(Device& device, std::string_view name, const WorkSize& size);
  ~DeviceWork();
  DeviceWork(const DeviceWork&) = delete;
  DeviceWork& operator=(const DeviceWork&) = delete;

 private:
  WorkRecord* record_;  // null: nothing is recorded, or an outer one has begun
};

}  // namespace switchyard
