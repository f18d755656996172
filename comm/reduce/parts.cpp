#include "comm/reduce/parts.h"

#include "comm/base/error.h"
#include "comm/device/device.h"
#include "comm/reduce/flat_arrays.h"

#include <algorithm>
#include <cstring>

namespace switchyard {
namespace {

// A message holds `width` elements of each part: f(begin, width) for all of them, begin counted from the part's own.
class Windows {
 public:
  Windows(const Group& group, std::int64_t size, std::span<const Range> parts, Bytes bucket, std::size_t element)
      : parts_(parts) {
    require(isize(parts.size()) == group.size(), "{} parts for {} ranks", parts.size(), group.size());
    std::int64_t end = 0;
    for (const Range& part : parts) {
      require(part.begin == end && part.end >= end, "a part of elements {} to {} after one that ends at {}", part.begin,
              part.end, end);
      end = part.end;
      longest_ = std::max(longest_, part.size());
    }
    require(end == size, "the parts end at element {} of {}", end, size);
    const std::int64_t room = bucket.value() / isize(element) / group.size();
    width_ = std::clamp<std::int64_t>(room, 1, std::max<std::int64_t>(longest_, 1));
  }

  std::int64_t widest() const { return width_; }
  template <class F>
  void for_each(const F& f) const {
    for (std::int64_t begin = 0; begin < longest_; begin += width_) f(begin, std::min(width_, longest_ - begin));
  }
  // What a message has of rank r's part: less than its width at the part's end, nothing beyond it.
  Range of(std::size_t rank, std::int64_t begin, std::int64_t width) const {
    const Range part = parts_[rank];
    return {std::min(part.begin + begin, part.end), std::min(part.begin + begin + width, part.end)};
  }

 private:
  std::span<const Range> parts_;
  std::int64_t longest_ = 0;
  std::int64_t width_ = 1;
};

template <class T>
void sum_windows(const Group& group, std::span<const std::span<T>> arrays, std::span<const Range> parts, Bytes bucket) {
  const FlatArrays<T> flat(arrays);
  const Windows windows(group, flat.size(), parts, bucket, sizeof(T));
  if (group.size() == 1) return;
  const std::size_t ranks = usize(group.size());
  const Buffer memory(cpu_device(), Bytes((group.size() + 1) * windows.widest() * isize(sizeof(T))));
  T* const mine = static_cast<T*>(memory.data());
  T* const all = mine + windows.widest();
  windows.for_each([&](std::int64_t begin, std::int64_t width) {
    for (std::size_t r = 0; r < ranks; ++r) {
      const Range window = windows.of(r, begin, width);
      T* const block = all + isize(r) * width;
      flat.read(window, block);
      std::fill(block + window.size(), block + width, T{0});
    }
    group.transport().reduce_scatter(all, mine, width, dtype_of<T>(), ReduceOp::Sum);
    flat.write(windows.of(usize(group.rank().value()), begin, width), mine);
  });
}

}  // namespace

std::vector<Range> cut_at_blocks(std::span<const std::int64_t> sizes, std::int64_t block, int parts) {
  require(block > 0 && parts > 0, "a cut into {} parts at blocks of {}", parts, block);
  std::int64_t total = 0;
  for (const std::int64_t size : sizes) total += size;
  std::vector<Range> result;
  std::size_t array = 0;
  std::int64_t array_begin = 0;
  for (int part = 0; part < parts; ++part) {
    // The end of this part's equal share, moved to the nearest place where a cut may be.
    const std::int64_t wanted = balanced_part(total, parts, part).end;
    while (array < sizes.size() && array_begin + sizes[array] < wanted) array_begin += sizes[array++];
    const std::int64_t in_array = wanted - array_begin;
    const std::int64_t size = array < sizes.size() ? sizes[array] : 0;
    const std::int64_t low = in_array / block * block;
    const std::int64_t high = std::min(low + block, size);
    const std::int64_t end = array_begin + (in_array - low <= high - in_array ? low : high);
    result.push_back({result.empty() ? 0 : result.back().end, end});
  }
  return result;
}

void sum_parts(const Group& group, std::span<const std::span<std::int64_t>> arrays, std::span<const Range> parts,
               Bytes bucket) {
  sum_windows(group, arrays, parts, bucket);
}
void sum_parts(const Group& group, std::span<const std::span<float>> arrays, std::span<const Range> parts,
               Bytes bucket) {
  sum_windows(group, arrays, parts, bucket);
}

void gather_parts(const Group& group, std::span<const std::span<float>> arrays, std::span<const Range> parts,
                  Bytes bucket) {
  const FlatArrays<float> flat(arrays);
  const Windows windows(group, flat.size(), parts, bucket, sizeof(float));
  if (group.size() == 1) return;
  const std::size_t me = usize(group.rank().value());
  const Buffer memory(cpu_device(), Bytes(group.size() * windows.widest() * isize(sizeof(float))));
  float* const all = static_cast<float*>(memory.data());
  windows.for_each([&](std::int64_t begin, std::int64_t width) {
    flat.read(windows.of(me, begin, width), all + isize(me) * width);
    group.transport().all_gather_in_place(all, Bytes(width * isize(sizeof(float))));
    for (std::size_t r = 0; r < usize(group.size()); ++r) {
      if (r != me) flat.write(windows.of(r, begin, width), all + isize(r) * width);
    }
  });
}

}  // namespace switchyard
