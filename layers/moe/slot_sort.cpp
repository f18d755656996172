#include "layers/moe/slot_sort.h"

#include "comm/device/work.h"
#include "layers/moe/slot_sort_cuda.h"
#include "layers/ops/float_type.h"

namespace switchyard {
namespace {

struct Sizes {
  std::int64_t tokens, top_k;
};

Sizes check_sorted(const char* op, const SortedSlots& sorted) {
  require(sorted.lists.defined() && sorted.lists.shape().rank() == 2, "{}: there are no sorted slots", op);
  if (on_cpu(sorted.lists)) fail_on_device(op, sorted.lists.device());
  const Sizes sizes{sorted.lists.dim(0), sorted.lists.dim(1)};
  const std::int64_t slots = sizes.tokens * sizes.top_k;
  const Device& device = sorted.lists.device();
  check_tensor(op, "begin", sorted.begin, sorted.begin.shape(), device, DType::I32);
  check_tensor(op, "token", sorted.token, {slots}, device, DType::I32);
  check_tensor(op, "weight", sorted.weight, {slots}, device);
  check_tensor(op, "place", sorted.place, sorted.lists.shape(), device, DType::I32);
  check_tensor(op, "lists", sorted.lists, sorted.lists.shape(), device, DType::I32);
  return sizes;
}

void check_rows(const char* op, const Tensor& rows, const SortedSlots& sorted, const Tensor& y) {
  const Sizes sizes = check_sorted(op, sorted);
  require(y.defined() && y.shape().rank() == 2, "{}: y is {}, wanted a matrix", op, y.shape().to_string());
  const DType type = float_type(op, "y", y);
  check_tensor(op, "rows", rows, {sizes.tokens * sizes.top_k, y.dim(1)}, y.device(), type);
  check_tensor(op, "y", y, {sizes.tokens, y.dim(1)}, sorted.lists.device(), type);
}

}  // namespace

SortedSlots allocate_sorted_slots(std::int64_t tokens, std::int64_t top_k, const Tensor& begin, Arena& arena) {
  return {.begin = begin,
          .token = allocate(arena, {tokens * top_k}, DType::I32),
          .weight = allocate(arena, {tokens * top_k}),
          .place = allocate(arena, {tokens, top_k}, DType::I32),
          .lists = allocate(arena, {tokens, top_k}, DType::I32)};
}

void sort_slots(const Tensor& experts, const Tensor& weights, const SortedSlots& sorted) {
  const char* op = "sort_slots";
  const Sizes sizes = check_sorted(op, sorted);
  check_tensor(op, "experts", experts, {sizes.tokens, sizes.top_k}, sorted.lists.device(), DType::I32);
  check_tensor(op, "weights", weights, {sizes.tokens, sizes.top_k}, sorted.lists.device());
  require(sorted.begin.size() > sizes.top_k, "{}: {} experts cannot be {} different ones", op, sorted.begin.size() - 1,
          sizes.top_k);
  const DeviceWork work(experts.device(), op,
                        {.bytes = bytes_of(experts, weights, sorted.token, sorted.weight, sorted.place, sorted.lists)});
  cuda::sort_slots(experts, weights, sorted);
}

void combine_slots(const Tensor& rows, const SortedSlots& sorted, const Tensor& residual, Tensor y) {
  const char* op = "combine_slots";
  check_rows(op, rows, sorted, y);
  const bool adds = residual.defined();
  if (adds) check_tensor(op, "residual", residual, y.shape(), y.device(), y.dtype());
  const DeviceWork work(y.device(), op, {.bytes = bytes_of(rows, sorted.lists, y) + (adds ? bytes_of(residual) : 0)});
  cuda::combine_slots(rows, sorted, residual, y);
}

void combine_slots_backward(const Tensor& dy, const SortedSlots& sorted, Tensor rows, Tensor dweight) {
  const char* op = "combine_slots_backward";
  check_rows(op, rows, sorted, dy);
  check_tensor(op, "dweight", dweight, sorted.weight.shape(), dy.device());
  const DeviceWork work(dy.device(), op,
                        {.bytes = bytes_of(rows, rows, rows, dweight)});  // a row of dy for each of rows
  cuda::combine_slots_backward(dy, sorted, rows, dweight);
}

void sum_slots(const Tensor& rows, const SortedSlots& sorted, Tensor y) {
  const char* op = "sum_slots";
  check_rows(op, rows, sorted, y);
  const DeviceWork work(y.device(), op, {.bytes = bytes_of(rows, sorted.lists, y)});
  cuda::sum_slots(rows, sorted, y);
}

void unsort(const Tensor& values, const SortedSlots& sorted, Tensor y) {
  const char* op = "unsort";
  const Sizes sizes = check_sorted(op, sorted);
  check_tensor(op, "values", values, {sizes.tokens * sizes.top_k}, sorted.lists.device());
  check_tensor(op, "y", y, {sizes.tokens, sizes.top_k}, sorted.lists.device());
  const DeviceWork work(y.device(), op, {.bytes = bytes_of(values, sorted.place, y)});
  cuda::unsort(values, sorted, y);
}

}  // namespace switchyard
