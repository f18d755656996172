// The sums of data-parallel training: one array a parameter, the same list on every rank of the group.
#pragma once

#include "comm/group/group.h"

#include <cstdint>
#include <span>

namespace switchyard {

// In place: each array becomes its sum over the group's ranks. Arrays that are small beside `bucket` go together in
// messages of about that size, the others as they lie. Collective; every rank gives arrays of the same sizes in the
// same order. int64 sums (see exact.h) are exact; fp32 sums are not, and their bits depend on the group.
void sum_gradients(const Group& group, std::span<const std::span<std::int64_t>> arrays, Bytes bucket = Bytes(8 << 20));
void sum_gradients(const Group& group, std::span<const std::span<float>> arrays, Bytes bucket = Bytes(8 << 20));

}  // namespace switchyard
