// See layers/moe/slot_sort.h.
#pragma once

#include "layers/moe/slot_sort.h"

namespace switchyard::cuda {

// An expert that is none makes its slot one of none: its place is -1, no list has it, and so many places after begin[E]
// are not set.
void sort_slots(const Tensor& experts, const Tensor& weights, const SortedSlots& sorted);
void combine_slots(const Tensor& rows, const SortedSlots& sorted, const Tensor& residual, Tensor y);
// NaN for the weight of a slot of none.
void combine_slots_backward(const Tensor& dy, const SortedSlots& sorted, Tensor rows, Tensor dweight);
void sum_slots(const Tensor& rows, const SortedSlots& sorted, Tensor y);
void unsort(const Tensor& values, const SortedSlots& sorted, Tensor y);  // NaN for a slot of none

}  // namespace switchyard::cuda
