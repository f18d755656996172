// (seed, epoch, global sample index) -> a sequence of tokens: the same for any number of ranks, with nothing to store
// but the index of the next sample.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace switchyard {

class TokenShards;  // data/loader/token_shard.h: memory-mapped shard files, checked when opened

class Loader {
 public:
  // The stream of all shards' tokens is cut into sequences of seq_len + 1 that overlap by one token. Throws Error(Data)
  // where there is not one whole sequence.
  Loader(std::shared_ptr<const TokenShards> shards, std::int64_t seq_len, std::uint64_t seed);

  std::int64_t sequences() const;  // an epoch
  // tokens: [seq_len + 1]. sample: any non-negative global index; sample / sequences() is the epoch, and each epoch is
  // a permutation of its own (a keyed bijection, nothing in memory).
  void read(std::int64_t sample, std::span<std::int32_t> tokens) const;
  // In order, for evaluation: sequence i of the split.
  void read_in_order(std::int64_t i, std::span<std::int32_t> tokens) const;

 private:
  std::shared_ptr<const TokenShards> shards_;
  std::int64_t seq_len_;
  std::uint64_t seed_;
};

}  // namespace switchyard
