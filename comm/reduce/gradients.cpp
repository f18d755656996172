#include "comm/reduce/gradients.h"

#include "comm/device/device.h"

#include <algorithm>
#include <cstring>

namespace switchyard {
namespace {

template <class T>
void sum_in_buckets(const Group& group, std::span<const std::span<T>> arrays, Bytes bucket) {
  if (group.size() == 1) return;
  require(bucket.value() >= isize(sizeof(T)), "a bucket of {} bytes holds no gradient", bucket.value());
  const std::size_t room = usize(bucket.value()) / sizeof(T);
  const std::size_t small = std::max<std::size_t>(room / 4, 1);  // from here on a copy costs more than a message

  std::size_t copied = 0;
  for (const std::span<T>& array : arrays) copied += array.size() <= small ? array.size() : 0;
  const Buffer memory(cpu_device(), Bytes(isize(std::min(copied, room) * sizeof(T))));
  T* const bucketed = static_cast<T*>(memory.data());

  std::size_t first = 0;  // arrays [first, i) that are small are in the bucket
  std::size_t filled = 0;
  const auto flush = [&](std::size_t end) {
    group.transport().all_reduce(bucketed, isize(filled), dtype_of<T>(), ReduceOp::Sum);
    const T* from = bucketed;
    for (; first < end; ++first) {
      if (arrays[first].size() > small || arrays[first].empty()) continue;
      std::memcpy(arrays[first].data(), from, arrays[first].size_bytes());
      from += arrays[first].size();
    }
    filled = 0;
  };
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    const std::span<T> array = arrays[i];
    if (array.size() > small) {
      group.transport().all_reduce(array.data(), isize(array.size()), dtype_of<T>(), ReduceOp::Sum);
      continue;
    }
    if (array.empty()) continue;
    if (filled + array.size() > room) flush(i);
    std::memcpy(bucketed + filled, array.data(), array.size_bytes());
    filled += array.size();
  }
  if (filled > 0) flush(arrays.size());
}

}  // namespace

void sum_gradients(const Group& group, std::span<const std::span<std::int64_t>> arrays, Bytes bucket) {
  sum_in_buckets(group, arrays, bucket);
}
void sum_gradients(const Group& group, std::span<const std::span<float>> arrays, Bytes bucket) {
  sum_in_buckets(group, arrays, bucket);
}

}  // namespace switchyard
