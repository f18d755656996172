#include "data/loader/loader.h"

#include "comm/base/error.h"
#include "comm/base/ids.h"
#include "data/loader/permutation.h"
#include "data/loader/token_shard.h"

namespace switchyard {

Loader::Loader(std::shared_ptr<const TokenShards> shards, std::int64_t seq_len, std::uint64_t seed)
    : shards_(std::move(shards)), seq_len_(seq_len), seed_(seed) {
  require(seq_len_ >= 1, "a loader of sequences of {} tokens", seq_len_);
  if (sequences() < 1) {
    fail(ErrorKind::Data, "the data has {} tokens, and one sequence of {} needs {}: prepare more text or lower seq_len",
         shards_->tokens(), seq_len_, seq_len_ + 1);
  }
}

// Sequence i is tokens [i seq_len, (i + 1) seq_len]: its last token is the next one's first, so that every token but
// the stream's first is a target once an epoch.
std::int64_t Loader::sequences() const {
  return (shards_->tokens() - 1) / seq_len_;
}

void Loader::read(std::int64_t sample, std::span<std::int32_t> tokens) const {
  require(sample >= 0, "sample {} asked of the loader", sample);
  const std::int64_t count = sequences();
  const Permutation shuffle(count, seed_, static_cast<std::uint64_t>(sample / count));
  read_in_order(shuffle(sample % count), tokens);
}

void Loader::read_in_order(std::int64_t i, std::span<std::int32_t> tokens) const {
  require(i >= 0 && i < sequences(), "sequence {} of a split that has {}", i, sequences());
  require(isize(tokens.size()) == seq_len_ + 1, "a sequence of {} tokens read into {} places", seq_len_ + 1,
          tokens.size());
  shards_->read(i * seq_len_, tokens);
}

}  // namespace switchyard
