// The sums of data-parallel training where each rank needs but a part of them, and the way back: ZeRO's reduce-scatter
// and all-gather (Rajbhandari et al. 2020, stage 1).
//
// The arrays of a call, one after the other, are one flat range, of which rank r has parts[r]: consecutive, from its
// beginning to its end, any of them empty. Every rank gives arrays of the same sizes in the same order, and the same
// parts. A message of about `bucket` bytes holds a window of every rank's part, so that all links work at once.
#pragma once

#include "comm/group/group.h"
#include "comm/group/topology.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// Cuts the flat range of arrays of these sizes into parts of nearly the same size: an array is cut at multiples of
// `block` elements only, and no part is larger or smaller than its share by more than a block.
std::vector<Range> cut_at_blocks(std::span<const std::int64_t> sizes, std::int64_t block, int parts);

// Each element of this rank's part becomes its sum over the group's ranks; what the other elements are afterwards is
// not defined. int64 sums are exact, fp32 sums are not. Collective.
void sum_parts(const Group& group, std::span<const std::span<std::int64_t>> arrays, std::span<const Range> parts,
               Bytes bucket = Bytes(8 << 20));
void sum_parts(const Group& group, std::span<const std::span<float>> arrays, std::span<const Range> parts,
               Bytes bucket = Bytes(8 << 20));

// Each element becomes what it is on the rank whose part it is in. Collective.
void gather_parts(const Group& group, std::span<const std::span<float>> arrays, std::span<const Range> parts,
                  Bytes bucket = Bytes(8 << 20));

}  // namespace switchyard
