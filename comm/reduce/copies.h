// The sums of data-parallel training over many small sets of ranks: arrays that some ranks of a group have copies of,
// others have copies of other arrays, a rank is in several sets, and the sets change as experts move. No communicator
// is made for any of them: the copies' holders send each other their shares, all sets in the same grouped exchanges.
//
// The arrays of a set are one flat range, of which each holder has a part, as in comm/reduce/parts.h. A sum comes to
// the part's holder from the others, who may then get it from there: twice the bytes of the arrays a rank, whatever the
// number of holders.
#pragma once

#include "comm/group/group.h"
#include "comm/group/topology.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// What every rank knows of every set; the same on all.
struct HeldRange {
  std::span<const Rank> holders;  // ascending
  std::span<const Range> parts;   // [holders]: consecutive, of the whole flat range; any of them empty
};

// sets: all of the group's, also those that this rank is no holder of. arrays: [sets], this rank's arrays of a set
// (nothing where it holds none). Collective over the group; a call takes about `bucket` bytes of memory.

// Each element of this rank's part becomes its sum over the holders, added in the order of their ranks, so that fp32
// sums have the same bits wherever they are needed; what the other elements are afterwards is not defined.
void sum_to_parts(const Group& group, std::span<const HeldRange> sets,
                  std::span<const std::vector<std::span<std::int64_t>>> arrays, Bytes bucket = Bytes(8 << 20));
void sum_to_parts(const Group& group, std::span<const HeldRange> sets,
                  std::span<const std::vector<std::span<float>>> arrays, Bytes bucket = Bytes(8 << 20));

// Each element becomes what it is at the holder whose part it is in.
void gather_from_parts(const Group& group, std::span<const HeldRange> sets,
                       std::span<const std::vector<std::span<std::int64_t>>> arrays, Bytes bucket = Bytes(8 << 20));
void gather_from_parts(const Group& group, std::span<const HeldRange> sets,
                       std::span<const std::vector<std::span<float>>> arrays, Bytes bucket = Bytes(8 << 20));
void gather_from_parts(const Group& group, std::span<const HeldRange> sets,
                       std::span<const std::vector<std::span<double>>> arrays, Bytes bucket = Bytes(8 << 20));

// The pure part: which windows of which sets go in the same grouped exchange. A window is elements [begin, begin +
// width) of every part; each of the other holders sends a holder so many.
struct HeldWindow {
  std::size_t set = 0;
  std::int64_t begin = 0;
  std::int64_t width = 0;
};
// Rounds in order. No rank receives more than `room` elements in one (but for one element of each other holder, if that
// is more), and the windows of a set are in rising rounds.
std::vector<std::vector<HeldWindow>> plan_rounds(int ranks, std::span<const HeldRange> sets, std::int64_t room);

}  // namespace switchyard
