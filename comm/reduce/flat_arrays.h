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
    for_slices(range, [&](T* array, std::int64_t offset, std::int64_t at, std::size_t count) {
      f(array + offset, at, count);
    });
  }
  // f(array, offset in it, place within the range, count) for the same.
  template <class F>
  void for_slices(Range range, const F& f) const {
    if (range.size() <= 0) return;
    std::size_t array = array_at(range.begin);
    for (std::int64_t at = range.begin; at < range.end; ++array) {
      const std::int64_t end = std::min(begins_[array + 1], range.end);
      if (end > at) f(arrays_[array].data(), at - begins_[array], at - range.begin, usize(end - at));
      at = std::max(at, end);
    }
  }
  // How many arrays a range goes through, at most.
  std::int64_t slices_in(Range range) const {
    return range.size() <= 0 ? 0 : isize(array_at(range.end - 1) - array_at(range.begin)) + 1;
  }

 private:
  std::size_t array_at(std::int64_t element) const {
    return usize(std::upper_bound(begins_.begin(), begins_.end(), element) - begins_.begin() - 1);
  }

  std::span<const std::span<T>> arrays_;
  std::vector<std::int64_t> begins_;  // [arrays + 1]
};

}  // namespace switchyard
