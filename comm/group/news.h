// What the ranks tell each other between two steps: is anyone asked to stop, and who was slow? One all-reduce of a
// fixed, small size in every step, whatever there is to tell (law 5).
#pragma once

#include "comm/group/group.h"
#include "comm/group/stop_request.h"

#include <array>
#include <cstdint>

namespace switchyard {

struct RankNews {
  StopReason stop = StopReason::None;
  double step_s = 0;  // the wall time of this rank's step
  double busy_s = 0;  // of that, without waiting for others
  double gap_s = 0;   // of that, the longest while in which the process did not run
};

// Alike on all ranks. Seconds are whole microseconds; of several ranks with the same figure the first is named.
struct News {
  struct Most {
    double seconds = 0;
    Rank rank{0};
  };
  StopReason stop = StopReason::None;
  Rank stop_rank{0};  // where it was asked for
  Most step, busy, gap;
  double least_busy_s = 0;
};

// Collective.
News share_news(const Group& world, const RankNews& mine);

// The pure parts: words of which the largest over ranks is taken, one by one.
using NewsWords = std::array<std::int64_t, 5>;
NewsWords pack_news(Rank rank, const RankNews& mine);
News unpack_news(const NewsWords& largest);

}  // namespace switchyard
