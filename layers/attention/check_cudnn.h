// cuDNN's attention against ours on the device at hand, before the first use of a kind of shape: a library that gives
// wrong numbers is found out by the run that would have used it.
#pragma once

#include "layers/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <span>

namespace switchyard::cudnn {

// Of one call, forward and backward.
struct AttentionTensors {
  Tensor q, k, v, out, log_sum_exp, dout, dq, dk, dv;
};

// What stands for the shape in the comparison: as long and as wide, with fewer sequences and heads.
inline AttentionShape checked_shape(const AttentionShape& shape) {
  constexpr std::int64_t long_sequence = 1024;
  AttentionShape small = shape;
  small.sequences = shape.positions > long_sequence ? 1 : std::min<std::int64_t>(shape.sequences, 2);
  small.kv_heads = std::min<std::int64_t>(shape.kv_heads, 2);
  small.heads = shape.heads / shape.kv_heads * small.kv_heads;
  return small;
}

// |got - wanted| in parts of |wanted| (both as vectors) for each `block` of numbers, the largest; infinity where a
// number is none. Attention's results shrink along a sequence: what is far off at its end is small beside its
// beginning.
inline double largest_difference(std::span<const float> got, std::span<const float> wanted, std::size_t block) {
  double largest = 0;
  for (std::size_t begin = 0; begin < wanted.size(); begin += block) {
    double error = 0;
    double size = 0;
    for (std::size_t i = begin; i < std::min(begin + block, wanted.size()); ++i) {
      const double w = static_cast<double>(wanted[i]);
      const double e = static_cast<double>(got[i]) - w;
      error += e * e;
      size += w * w;
    }
    const double difference = error == 0 ? 0 : std::sqrt(error / size);
    largest = std::isfinite(difference) ? std::max(largest, difference) : std::numeric_limits<double>::infinity();
  }
  return largest;
}

// The largest difference of cuDNN's results from ours, for random inputs.
double difference_from_ours(Device& device, const AttentionShape& shape,
                            const std::function<void(const AttentionTensors&)>& forward,
                            const std::function<void(const AttentionTensors&, Arena& scratch)>& backward);

}  // namespace switchyard::cudnn
