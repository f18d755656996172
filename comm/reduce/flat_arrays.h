// Several arrays as one flat range, one after the other.
#pragma once

#include "comm/base/ids.h"
#include "comm/group/topology.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace switchyard {

template <class T>
class FlatArrays {
 public:
  explicit FlatArrays(std::span<const std::span<T>> arrays) : arrays_(arrays), begins_(1, 0) {
    for (const std::span<T>& array : arrays) begins_.push_back(begins_.back() + isize(array.size()));
  }

  std::int64_t size() const { return begins_.back(); }
  void read(Range range, T* to) const {
    for_parts(range, [&](T* elements, std::int64_t at, std::size_t count) {
      std::memcpy(to + at, elements, count * sizeof(T));
    });
  }
  void write(Range range, const T* from) const {
    for_parts(range, [&](T* elements, std::int64_t at, std::size_t count) {
      std::memcpy(elements, from + at, count * sizeof(T));
    });
  }

  // f(elements, place within the range, count) for the part of each array that lies in the range.
  template <class F>
  void for_parts(Range range, const F& f) const {
    if (range.size() <= 0) return;
    std::size_t array = usize(std::upper_bound(begins_.begin(), begins_.end(), range.begin) - begins_.begin() - 1);
    for (std::int64_t at = range.begin; at < range.end; ++array) {
      const std::int64_t end = std::min(begins_[array + 1], range.end);
      if (end > at) f(arrays_[array].data() + (at - begins_[array]), at - range.begin, usize(end - at));
      at = std::max(at, end);
    }
  }

 private:
  std::span<const std::span<T>> arrays_;
  std::vector<std::int64_t> begins_;  // [arrays + 1]
};

}  // namespace switchyard
