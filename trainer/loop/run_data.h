// What a run reads: the text that it trains on, and the held-out part.
#pragma once

#include "comm/group/group.h"
#include "data/loader/token_shard.h"
#include "trainer/config/config.h"
#include "trainer/loop/evaluation.h"

#include <memory>

namespace switchyard {

struct RunData {
  std::shared_ptr<const TokenShards> train;
  std::unique_ptr<ValidSplit> valid;  // null where the folder has no held-out text long enough
};

// Collective. Settles model.vocab where the config leaves it to the data. Throws CollectiveError where the data cannot
// be opened, has tokens beyond the vocabulary, or is not the same on all ranks.
RunData open_data(const Group& world, Config& config);

}  // namespace switchyard
