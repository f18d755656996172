// The rows that weight gradients are summed over, as a kernel reads them: groups of segments of ranges.
#pragma once

#include "comm/base/ids.h"
#include "layers/tensor/parameter.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard::cuda {

struct GradientSegments {
  std::vector<std::int32_t> range_begin, range_end;  // none where there are `bounds`
  const std::int32_t* bounds = nullptr;              // on the device: range i goes from bounds[i] to bounds[i + 1]
  std::vector<std::int32_t> segment_begin;           // [segments + 1], ranges
  std::vector<std::int32_t> group_begin;             // [groups + 1], segments

  GradientSegments of_groups(std::size_t first, std::size_t last) const {
    GradientSegments part;
    const auto cut = [](const std::vector<std::int32_t>& list, std::int32_t from, std::int32_t to, std::int32_t less) {
      std::vector<std::int32_t> result(list.begin() + from, list.begin() + to);
      for (std::int32_t& value : result) value -= less;
      return result;
    };
    const std::int32_t segment = group_begin[first], end = group_begin[last];
    part.group_begin = cut(group_begin, static_cast<std::int32_t>(first), static_cast<std::int32_t>(last) + 1, segment);
    part.bounds = bounds;
    const std::int32_t range = bounds != nullptr ? 0 : segment_begin[usize(segment)];
    part.segment_begin = cut(segment_begin, segment, end + 1, range);
    if (bounds == nullptr) {
      part.range_begin = cut(range_begin, range, segment_begin[usize(end)], 0);
      part.range_end = cut(range_end, range, segment_begin[usize(end)], 0);
    }
    return part;
  }

  // Of a launch's lists for these groups, with sum_bytes for each one's sums.
  std::size_t bytes_of_groups(std::size_t first, std::size_t last, std::size_t sum_bytes) const {
    const auto segment = usize(group_begin[first]), end = usize(group_begin[last]);
    const std::size_t ranges = bounds != nullptr ? 0 : usize(segment_begin[end] - segment_begin[segment]);
    return (last - first) * (sum_bytes + 4) + (end - segment) * 4 + ranges * 8 + 64;
  }
};

inline std::vector<std::int32_t> narrowed(std::span<const std::int64_t> values) {
  return {values.begin(), values.end()};
}

// One partial a segment where sums are exact. Otherwise one a group, which spares all but one pass over the sums.
inline void set_segments(GradientSegments& segments, std::span<const std::int64_t> segment_begin,
                         std::span<const std::int64_t> group_begin, const GradientSum& gradient) {
  if (gradient.exact != nullptr || gradient.numerics == Numerics::Reproducible) {
    segments.segment_begin = narrowed(segment_begin);
    segments.group_begin = narrowed(group_begin);
    return;
  }
  for (const std::int64_t segment : group_begin) {
    segments.group_begin.push_back(static_cast<std::int32_t>(segments.segment_begin.size()));
    segments.segment_begin.push_back(static_cast<std::int32_t>(segment_begin[usize(segment)]));
  }
}

}  // namespace switchyard::cuda
