// The held-out split, and what a model makes of it.
#pragma once

#include "data/loader/loader.h"
#include "trainer/loop/engine.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

namespace switchyard {

class ValidSplit {
 public:
  // path: the folder that prepare wrote, or one token shard. Throws Error(Data) where it is damaged, and where it has
  // not one whole sequence.
  ValidSplit(const std::filesystem::path& path, std::int64_t seq_len);
  // The same of shards that are open already.
  ValidSplit(std::shared_ptr<const TokenShards> shards, const std::filesystem::path& path, std::int64_t seq_len);
  const Loader& loader() const { return loader_; }
  std::int64_t vocab() const { return vocab_; }
  // Of the text that the tokens stand for; nothing for a lone shard, which does not know its text.
  std::optional<double> tokens_per_byte() const { return tokens_per_byte_; }

 private:
  Loader loader_;
  std::int64_t vocab_;
  std::optional<double> tokens_per_byte_;
};

struct Evaluation {
  double loss = 0;  // nats a token
  std::optional<double> bits_per_byte;
  std::int64_t sequences = 0;
  std::int64_t tokens = 0;
};

// Over the first `sequences` sequences (0: all). Collective.
Evaluation evaluate(Engine& engine, const ValidSplit& split, std::int64_t sequences);

}  // namespace switchyard
