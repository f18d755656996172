#include "layers/moe/assignment.h"

#include "comm/device/host_view.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace switchyard {

std::int64_t expert_capacity(std::int64_t tokens, std::int64_t top_k, std::int64_t experts, double factor) {
  if (factor <= 0) return std::numeric_limits<std::int64_t>::max();
  // 100 slots a share times 1.1 is 110, though the product of the doubles is a little more: what lies within rounding
  // of a whole number is that number.
  const double share = static_cast<double>(tokens * top_k) / static_cast<double>(experts) * factor;
  const double whole = std::ceil(share * (1 - 1e-12));
  const double all = static_cast<double>(tokens);  // an expert is chosen by a token once
  return static_cast<std::int64_t>(std::min(whole, all));
}

Assignment assign(const Tensor& experts, const Tensor& weights, std::int64_t expert_count, std::int64_t capacity) {
  check_shape("assign", "weights", weights, experts.shape());
  const std::int64_t tokens = experts.dim(0);
  const std::int64_t top_k = experts.dim(1);
  Assignment result;
  result.chosen.assign(usize(expert_count), 0);
  result.worked_on.assign(usize(expert_count), 0);
  result.kept.reserve(usize(tokens * top_k));
  const HostView<std::int32_t> expert_of(experts.device(), experts.i32(), experts.size());
  const HostView<float> weight_of(weights.device(), weights.f32(), weights.size());
  for (std::int64_t token = 0; token < tokens; ++token) {
    for (std::int64_t choice = 0; choice < top_k; ++choice) {
      const std::int64_t slot = token * top_k + choice;
      const std::int32_t expert = expert_of[slot];
      require(expert >= 0 && expert < expert_count, "assign: token {} chose expert {} of {}", token, expert,
              expert_count);
      ++result.chosen[usize(expert)];
      if (result.worked_on[usize(expert)] == capacity) {
        ++result.dropped;
        continue;
      }
      ++result.worked_on[usize(expert)];
      result.kept.push_back(
          {static_cast<std::int32_t>(token), static_cast<std::int32_t>(choice), expert, weight_of[slot]});
    }
  }
  return result;
}

void add_pairs(const Assignment& assignment, std::int64_t expert_count, std::span<std::int64_t> pairs) {
  require(isize(pairs.size()) == expert_count * expert_count, "{} numbers of pairs for {} experts", pairs.size(),
          expert_count);
  const std::vector<AssignedSlot>& kept = assignment.kept;
  for (std::size_t begin = 0; begin < kept.size();) {
    std::size_t end = begin + 1;
    while (end < kept.size() && kept[end].token == kept[begin].token) ++end;
    for (std::size_t a = begin; a < end; ++a) {
      for (std::size_t b = begin; b < end; ++b) {
        if (a != b) ++pairs[usize(kept[a].expert * expert_count + kept[b].expert)];
      }
    }
    begin = end;
  }
}

}  // namespace switchyard
