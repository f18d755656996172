// Token shards on disk: one file holds a part of a split's token stream.
//
//   offset  bytes  field (little-endian)
//        0      8  magic: 0x89 "SYTOK" CR LF (a text-mode copy or a 7-bit wire breaks it visibly)
//        8      4  format version, 1
//       12      4  bytes a token: 2 (vocabulary up to 65,536) or 4
//       16      8  tokens in this file
//       24      8  vocabulary: every token is below it
//       32      8  XXH3-64 of the tokens' bytes
//       40     16  zero
//       56      8  XXH3-64 of bytes 0 to 55
//       64         tokens, 2 or 4 bytes each, unsigned; the file ends with the last one
//
// A folder that `prepare` wrote holds train-00000.sytok, train-00001.sytok, ..., valid-00000.sytok, ... and meta.json.
#pragma once

#include "data/loader/mapped_file.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace switchyard {

namespace token_shard {
inline constexpr unsigned char kMagic[8] = {0x89, 'S', 'Y', 'T', 'O', 'K', '\r', '\n'};
inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::size_t kHeaderBytes = 64;
inline constexpr const char* kExtension = ".sytok";
constexpr std::uint32_t token_bytes(std::int64_t vocab) {
  return vocab <= 65536 ? 2 : 4;
}
}  // namespace token_shard

enum class Split { Train, Valid };
const char* name_of(Split split);  // "train", "valid"

// The name of a split's n-th shard: train-00000.sytok.
std::string shard_name(Split split, std::int64_t n);

// One shard, memory-mapped.
class TokenShard {
 public:
  // Checks everything: header, size, checksums, and every token against the vocabulary. Throws Error(Data) naming the
  // file and what is wrong with it; Error(Usage) where there is no such file.
  explicit TokenShard(const std::filesystem::path& file);

  std::int64_t tokens() const { return tokens_; }
  std::int64_t vocab() const { return vocab_; }
  // tokens[i] = token first + i. The range must lie within the shard.
  void read(std::int64_t first, std::span<std::int32_t> tokens) const;

 private:
  MappedFile map_;
  std::int64_t tokens_ = 0;
  std::int64_t vocab_ = 0;
  std::uint32_t token_bytes_ = 0;
};

// All shards of a split, as one stream of tokens.
class TokenShards {
 public:
  // `path`: a folder that `prepare` wrote, of which the shards of `split` are opened, or one shard file (`split` is
  // then not looked at). Throws as TokenShard does, and Error(Data) where a shard of the folder is missing or the
  // folder's meta.json says otherwise. A split without text (a held-out split of a tiny corpus) has no shard and no
  // tokens.
  static std::shared_ptr<const TokenShards> open(const std::filesystem::path& path, Split split = Split::Train);
  explicit TokenShards(std::vector<TokenShard> shards);

  std::int64_t tokens() const { return starts_.back(); }
  std::int64_t vocab() const { return vocab_; }
  // tokens[i] = token first + i of the stream. The range must lie within it.
  void read(std::int64_t first, std::span<std::int32_t> tokens) const;

 private:
  std::vector<TokenShard> shards_;
  std::vector<std::int64_t> starts_;  // [shards + 1]: where each shard begins in the stream, and the end
  std::int64_t vocab_ = 0;
};

}  // namespace switchyard
