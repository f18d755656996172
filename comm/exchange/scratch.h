// What the exchanges have in common.
#pragma once

#include "comm/base/stopwatch.h"
#include "comm/base/timers.h"
#include "comm/device/device.h"

#include <cstddef>
#include <cstdint>

namespace switchyard {

// Memory that grows to the largest size asked for and is then kept.
class Scratch {
 public:
  std::byte* bytes(std::int64_t count) {
    if (Bytes(count) > buffer_.size()) {
      buffer_ = Buffer();  // first give back, then take
      buffer_ = Buffer(cpu_device(), Bytes(count));
    }
    return static_cast<std::byte*>(buffer_.data());
  }
  float* floats(std::int64_t count) {
    return reinterpret_cast<float*>(bytes(count * static_cast<std::int64_t>(sizeof(float))));
  }

 private:
  Buffer buffer_;
};

inline constexpr std::int64_t parallel_floats = 1 << 14;  // less is done sooner by one thread than shared out

// The traffic's seconds, and the phase's.
struct ExchangeTimer {
  explicit ExchangeTimer(double& seconds) : stopwatch(seconds) {}
  PhaseTimer phase{Phase::Exchange};
  Stopwatch stopwatch;
};

}  // namespace switchyard
