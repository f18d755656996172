// Streams the tokens of a split into shards of a limited size.
#pragma once

#include "data/loader/token_shard.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

namespace switchyard {

class ShardWriter {
 public:
  // Files go to `folder`, which exists. Each is written under a temporary name and renamed when it is on the disk.
  ShardWriter(std::filesystem::path folder, Split split, std::int64_t vocab, std::int64_t tokens_a_shard);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  void write(std::span<const std::int32_t> tokens);  // throws Error(Runtime) where a token is not in the vocabulary
  void finish();                                     // the last shard; a writer that was given no token leaves no file

  std::int64_t tokens() const { return tokens_; }
  std::int64_t shards() const { return shards_; }

 private:
  struct Open;  // the shard being written
  void begin_shard();
  void end_shard();

  std::filesystem::path folder_;
  Split split_;
  std::int64_t vocab_;
  std::int64_t tokens_a_shard_;
  std::int64_t tokens_ = 0;
  std::int64_t shards_ = 0;
  std::unique_ptr<Open> open_;
};

}  // namespace switchyard
