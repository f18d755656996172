#include "trainer/loop/evaluation.h"

#include "data/loader/meta.h"
#include "data/loader/token_shard.h"

#include <algorithm>
#include <numbers>

namespace switchyard {

ValidSplit::ValidSplit(const std::filesystem::path& path, std::int64_t seq_len)
    : ValidSplit(TokenShards::open(path, Split::Valid), path, seq_len) {}

ValidSplit::ValidSplit(std::shared_ptr<const TokenShards> shards, const std::filesystem::path& path,
                       std::int64_t seq_len)
    : loader_(shards, seq_len, /*seed=*/0), vocab_(shards->vocab()) {
  if (!std::filesystem::is_directory(path)) return;
  const SplitMeta valid = read_meta(path).valid;
  if (valid.bytes > 0) tokens_per_byte_ = static_cast<double>(valid.tokens) / static_cast<double>(valid.bytes);
}

Evaluation evaluate(Engine& engine, const ValidSplit& split, std::int64_t sequences) {
  const std::int64_t all = split.loader().sequences();
  Evaluation result;
  result.sequences = sequences > 0 ? std::min(sequences, all) : all;
  result.tokens = result.sequences * engine.config().model.seq_len;
  const auto read = [&](std::int64_t i, std::span<std::int32_t> tokens) { split.loader().read_in_order(i, tokens); };
  result.loss = engine.evaluate(read, result.sequences);
  if (split.tokens_per_byte()) result.bits_per_byte = result.loss / std::numbers::ln2 * *split.tokens_per_byte();
  return result;
}

}  // namespace switchyard
