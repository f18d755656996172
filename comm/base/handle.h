// The one owner of a C library's handle (MPI_Comm, hid_t, ...). Move-only.
//
// Traits: `using Value`, `static Value none()`, `static void release(Value) noexcept`.
#pragma once

#include <utility>

namespace switchyard {

template <class Traits>
class Handle {
 public:
  using Value = typename Traits::Value;

  Handle() = default;
  explicit Handle(Value value) : value_(value) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept : value_(std::exchange(other.value_, Traits::none())) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      reset();
      value_ = std::exchange(other.value_, Traits::none());
    }
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  Value get() const { return value_; }
  explicit operator bool() const { return value_ != Traits::none(); }
  void reset() noexcept {
    if (value_ != Traits::none()) Traits::release(std::exchange(value_, Traits::none()));
  }

 private:
  Value value_ = Traits::none();
};

}  // namespace switchyard
