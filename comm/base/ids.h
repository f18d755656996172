// Numbers that must not be mixed up get a type each, and narrowing to the `int` of MPI's counts is checked.
#pragma once

#include "comm/base/error.h"

#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace switchyard {

template <class Tag, class Value>
class Strong {
 public:
  using value_type = Value;
  constexpr Strong() = default;
  constexpr explicit Strong(Value value) : value_(value) {}
  constexpr Value value() const { return value_; }
  constexpr auto operator<=>(const Strong&) const = default;
  constexpr Strong& operator++() {
    ++value_;
    return *this;
  }

 private:
  Value value_{};
};

using Rank = Strong<struct RankTag, int>;           // a process, by its number in the group at hand
using Node = Strong<struct NodeTag, int>;           // a host (or a forced part of one)
using Rows = Strong<struct RowsTag, std::int64_t>;  // how many token vectors
using Bytes = Strong<struct BytesTag, std::int64_t>;

// An int64 count as MPI's int; throws, naming `what`, where it does not fit.
inline int checked_int(std::int64_t value, const char* what) {
  if (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max()) [[unlikely]] {
    fail(ErrorKind::Runtime, "{} = {} does not fit the 32-bit count that MPI takes", what, value);
  }
  return static_cast<int>(value);
}

// Index for std::vector and std::span from a signed count that is known not to be negative.
constexpr std::size_t usize(std::int64_t value) {
  return static_cast<std::size_t>(value);
}
constexpr std::int64_t isize(std::size_t value) {
  return static_cast<std::int64_t>(value);
}

}  // namespace switchyard
