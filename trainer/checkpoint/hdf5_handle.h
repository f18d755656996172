// The owner of HDF5's handles (comm/base/handle.h cannot be it: here closing may fail, and that must be heard), and
// HDF5's errors in our words. HDF5 itself never prints anything.
#pragma once

#include "comm/base/error.h"

#include <string>
#include <utility>

#include <hdf5.h>

namespace switchyard::checkpoint {

class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Hdf5Handle() = default;
  Hdf5Handle(hid_t id, Close closer) : id_(id), close_(closer) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept {
    if (this != &other) {
      close();
      id_ = std::exchange(other.id_, H5I_INVALID_HID);
      close_ = other.close_;
    }
    return *this;
  }
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;
  ~Hdf5Handle() { close(); }

  hid_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  // False where HDF5 could not write what it still held. The handle is gone either way: closing a file again after a
  // failure is a crash in HDF5 1.10.
  bool close() noexcept {
    const hid_t id = std::exchange(id_, H5I_INVALID_HID);
    return id < 0 || close_(id) >= 0;
  }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

// Before anything else in each function that calls HDF5: no printing in this thread, no clean-up at exit (it crashes
// where an earlier close failed, and nothing needs it).
void quiet_hdf5();

// The innermost cause on this thread's error stack: "No space left on device".
std::string hdf5_cause();

// Throws Error(kind) "WHAT: cause" unless `holds`.
template <class... Args>
void hdf5_require(bool holds, ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  if (holds) return;
  const std::string cause = hdf5_cause();
  throw Error(kind, fmt::format("{}: {}", fmt::format(format, std::forward<Args>(args)...), cause));
}

}  // namespace switchyard::checkpoint
