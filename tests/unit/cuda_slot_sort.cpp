// Slots sorted by expert on a CUDA device, and what is made of the sorted rows, against the host's stable sort.
#include "layers/moe/slot_sort.h"
#include "layers/ops/rows.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

#include <algorithm>
#include <numeric>

namespace switchyard::test {
namespace {

struct Case {
  std::int64_t tokens, top_k, experts, width;
  bool uneven;  // nearly all slots go to few experts
};
const std::vector<Case> cases = {{1, 1, 1, 8, false},     {7, 2, 3, 5, false},  {300, 2, 8, 24, true},
                                 {513, 3, 17, 40, false}, {64, 8, 64, 9, true}, {1000, 1, 5, 16, true},
                                 {130, 4, 300, 8, false}, {0, 2, 4, 8, false}};

// Different experts for each token.
std::vector<std::int32_t> choices(const Case& c) {
  std::vector<std::int32_t> all(usize(c.tokens * c.top_k));
  for (std::int64_t t = 0; t < c.tokens; ++t) {
    std::vector<std::int32_t> experts(usize(c.experts));
    std::iota(experts.begin(), experts.end(), 0);
    const auto random = random_indices(c.experts, c.experts, static_cast<std::uint64_t>(100 + t));
    if (!c.uneven || t % 10 == 0) {
      for (std::size_t i = 0; i < experts.size(); ++i) std::swap(experts[i], experts[usize(random[i])]);
    }
    for (std::int64_t k = 0; k < c.top_k; ++k) all[usize(t * c.top_k + k)] = experts[usize((k + t) % c.top_k)];
  }
  return all;
}

struct Wanted {
  std::vector<std::int32_t> begin, token, place, lists;
  std::vector<float> weight;
};
Wanted sorted_by_host(const Case& c, const std::vector<std::int32_t>& experts, const std::vector<float>& weights) {
  std::vector<std::int32_t> order(experts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return experts[usize(a)] < experts[usize(b)]; });
  Wanted wanted;
  wanted.begin.assign(usize(c.experts + 1), 0);
  for (const std::int32_t expert : experts) ++wanted.begin[usize(expert + 1)];
  std::partial_sum(wanted.begin.begin(), wanted.begin.end(), wanted.begin.begin());
  wanted.place.resize(experts.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    wanted.token.push_back(static_cast<std::int32_t>(order[i] / c.top_k));
    wanted.weight.push_back(weights[usize(order[i])]);
    wanted.place[usize(order[i])] = static_cast<std::int32_t>(i);
  }
  wanted.lists = wanted.place;
  for (std::int64_t t = 0; t < c.tokens; ++t) {
    std::sort(wanted.lists.begin() + t * c.top_k, wanted.lists.begin() + (t + 1) * c.top_k);
  }
  return wanted;
}

DeviceTensor index_tensor(Device& device, const std::vector<std::int32_t>& values) {
  return {device, values};
}

TEST_CASE("slots are sorted by expert, in the order of tokens") {
  Device& device = cuda_device();
  for (const Case& c : cases) {
    CAPTURE(c.tokens, c.top_k, c.experts, c.uneven);
    const auto experts = choices(c);
    const auto weights = random_values(c.tokens * c.top_k, 1);
    const Wanted wanted = sorted_by_host(c, experts, weights);
    Arena arena(device);
    const SortedSlots sorted =
        allocate_sorted_slots(c.tokens, c.top_k, allocate(arena, {c.experts + 1}, DType::I32), arena);
    for (const Tensor& tensor : {sorted.begin, sorted.token, sorted.weight, sorted.place, sorted.lists}) {
      device.fill(tensor.raw(), 0xff, Bytes(tensor.size() * 4), device.stream());
    }
    const DeviceTensor chosen = index_tensor(device, experts);
    const DeviceTensor gates(device, weights, {c.tokens, c.top_k});
    sort_slots(chosen.get().reshaped({c.tokens, c.top_k}), gates, sorted);
    CHECK(host_values<std::int32_t>(sorted.begin) == wanted.begin);
    CHECK(host_values<std::int32_t>(sorted.token) == wanted.token);
    CHECK(host_values<float>(sorted.weight) == wanted.weight);
    CHECK(host_values<std::int32_t>(sorted.place) == wanted.place);
    CHECK(host_values<std::int32_t>(sorted.lists) == wanted.lists);

    for (const DType dtype : {DType::F32, DType::BF16}) {
      CAPTURE(name_of(dtype));
      const auto values = rounded(random_values(c.tokens * c.top_k * c.width, 2), dtype);
      const DeviceTensor rows(device, values, {c.tokens * c.top_k, c.width}, dtype);
      const DeviceTensor combined(device, Shape{c.tokens, c.width}, dtype),
          sums(device, Shape{c.tokens, c.width}, dtype);
      combine_slots(rows, sorted, Tensor(), combined);
      sum_slots(rows, sorted, sums);
      const auto stream = rounded(random_values(c.tokens * c.width, 5), dtype);
      const DeviceTensor residual(device, stream, {c.tokens, c.width}, dtype),
          whole(device, Shape{c.tokens, c.width}, dtype);
      combine_slots(rows, sorted, residual, whole);
      // Backward: the weights' gradients as dot_rows() has them, the rows' as gather_rows_scaled() has.
      const DeviceTensor slopes(device, values, {c.tokens * c.top_k, c.width}, dtype),
          scaled(device, slopes.get().shape(), dtype);
      const DeviceTensor dweight(device, Shape{c.tokens * c.top_k}), dots(device, Shape{c.tokens * c.top_k});
      combine_slots_backward(residual, sorted, slopes, dweight);
      dot_rows(residual, sorted.token, rows, dots);
      gather_rows_scaled(residual, sorted.token, sorted.weight, scaled);
      CHECK(same_bits(dweight.values(), dots.values()));
      CHECK(same_bits(slopes.values(), scaled.values()));
      std::vector<float> wanted_combined, wanted_sums;
      for (std::int64_t t = 0; t < c.tokens; ++t) {
        for (std::int64_t d = 0; d < c.width; ++d) {
          float weighted = 0, plain = 0;
          for (std::int64_t k = 0; k < c.top_k; ++k) {
            const std::int32_t i = wanted.lists[usize(t * c.top_k + k)];
            const float value = values[usize(i * c.width + d)];
            weighted += rounded({wanted.weight[usize(i)] * value}, dtype).front();
            plain += value;
          }
          wanted_combined.push_back(weighted);
          wanted_sums.push_back(plain);
        }
      }
      CHECK(same_bits(combined.values(), rounded(wanted_combined, dtype)));
      std::vector<float> wanted_whole = rounded(wanted_combined, dtype);
      for (std::size_t i = 0; i < stream.size(); ++i) wanted_whole[i] += stream[i];
      CHECK(same_bits(whole.values(), rounded(wanted_whole, dtype)));
      CHECK(same_bits(sums.values(), rounded(wanted_sums, dtype)));
    }

    const DeviceTensor scalars(device, random_values(c.tokens * c.top_k, 3), {c.tokens * c.top_k});
    const DeviceTensor back(device, Shape{c.tokens, c.top_k});
    unsort(scalars, sorted, back);
    std::vector<float> wanted_back;
    for (const std::int32_t i : wanted.place) wanted_back.push_back(scalars.values()[usize(i)]);
    CHECK(back.values() == wanted_back);
  }
}

TEST_CASE("an expert that is none takes no place") {
  Device& device = cuda_device();
  const DeviceTensor chosen = index_tensor(device, {0, 2, 7, 1, -1, 0});
  const DeviceTensor weights(device, {1, 2, 3, 4, 5, 6}, {3, 2});
  Arena arena(device);
  const SortedSlots sorted = allocate_sorted_slots(3, 2, allocate(arena, {4}, DType::I32), arena);
  sort_slots(chosen.get().reshaped({3, 2}), weights, sorted);
  CHECK(host_values<std::int32_t>(sorted.begin) == std::vector<std::int32_t>{0, 2, 3, 4});
  CHECK(host_values<std::int32_t>(sorted.place) == std::vector<std::int32_t>{0, 3, -1, 2, -1, 1});
  const DeviceTensor rows(device, {1, 10, 100, 1000, -1, -1}, {6, 1}), y(device, Shape{3, 1});
  sum_slots(rows, sorted, y);
  CHECK(y.values() == std::vector<float>{1001, 100, 10});
  const DeviceTensor dweight(device, Shape{6});
  combine_slots_backward(y, sorted, rows, dweight);
  const auto slopes = dweight.values();
  CHECK(std::vector<float>(slopes.begin(), slopes.begin() + 4) == std::vector<float>{1001, 100, 10000, 1001000});
  CHECK(std::isnan(slopes[4]));
}

TEST_CASE("sorting slots asks for tensors that fit") {
  Device& device = cuda_device();
  Arena arena(device);
  const SortedSlots sorted = allocate_sorted_slots(3, 2, allocate(arena, {5}, DType::I32), arena);
  const DeviceTensor weights(device, Shape{3, 2}), few(device, Shape{2, 2});
  const DeviceTensor chosen = index_tensor(device, {0, 1, 2, 3, 0, 1});
  CHECK_THROWS_WITH(sort_slots(chosen, weights, sorted), Catch::Contains("sort_slots: experts is [6], wanted [3, 2]"));
  CHECK_THROWS_WITH(sort_slots(chosen.get().reshaped({3, 2}), few, sorted), Catch::Contains("weights is [2, 2]"));
  const DeviceTensor rows(device, Shape{5, 4}), y(device, Shape{3, 4});
  CHECK_THROWS_WITH(combine_slots(rows, sorted, Tensor(), y), Catch::Contains("rows is [5, 4], wanted [6, 4]"));
  Arena on_cpu(cpu_device());
  CHECK_THROWS(sum_slots(rows, allocate_sorted_slots(3, 2, allocate(on_cpu, {5}, DType::I32), on_cpu), y));
}

}  // namespace
}  // namespace switchyard::test
