#include "trainer/loop/run_data.h"

#include "comm/group/agree.h"

#include <filesystem>
#include <string>

namespace switchyard {

namespace fs = std::filesystem;

RunData open_data(const Group& world, Config& config) {
  RunData data;
  collectively(world, "opening the data", [&] {
    data.train = TokenShards::open(config.data.train, Split::Train);
    if (config.model.vocab == 0) config.model.vocab = data.train->vocab();
    if (config.model.vocab < data.train->vocab()) {
      fail(ErrorKind::Usage, "model.vocab = {} is too small: the token ids of {} go up to {}", config.model.vocab,
           config.data.train, data.train->vocab() - 1);
    }
    if (config.data.valid.empty() || !fs::exists(config.data.valid)) return;
    const auto shards = TokenShards::open(config.data.valid, Split::Valid);
    if (shards->tokens() <= config.model.seq_len) return;
    data.valid = std::make_unique<ValidSplit>(shards, config.data.valid, config.model.seq_len);
    if (data.valid->vocab() > config.model.vocab) {
      fail(ErrorKind::Usage, "model.vocab = {} is too small for the held-out split: the token ids of {} go up to {}",
           config.model.vocab, config.data.valid, data.valid->vocab() - 1);
    }
  });
  require_same(world, "the number of training tokens", std::to_string(data.train->tokens()));
  return data;
}

}  // namespace switchyard
