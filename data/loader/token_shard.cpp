#include "data/loader/token_shard.h"

#include "comm/base/error.h"
#include "comm/base/ids.h"
#include "data/loader/meta.h"
#include "data/loader/shard_header.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include <xxhash.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using token_shard::kHeaderBytes;

// The payload begins 64 bytes into a page-aligned mapping, so it may be read as its type.
template <class T>
std::span<const T> payload(const MappedFile& map) {
  const std::span<const std::byte> bytes = map.bytes().subspan(kHeaderBytes);
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

// The first token that is not below the vocabulary, or tokens.size().
template <class T>
std::size_t first_beyond(std::span<const T> tokens, std::uint64_t vocab) {
  constexpr std::size_t kBlock = 4096;  // the maximum of a block vectorises; the search inside one does not
  for (std::size_t block = 0; block < tokens.size(); block += kBlock) {
    const auto part = tokens.subspan(block, std::min(kBlock, tokens.size() - block));
    T largest = 0;
    for (const T token : part) largest = std::max(largest, token);
    if (largest < vocab) continue;
    const auto at = std::find_if(part.begin(), part.end(), [&](T token) { return token >= vocab; });
    return block + static_cast<std::size_t>(at - part.begin());
  }
  return tokens.size();
}

template <class T>
void check_tokens(const MappedFile& map, const token_shard::Header& header, const std::string& file) {
  const std::span<const T> tokens = payload<T>(map);
  // Piece by piece, so that a corpus larger than the memory is never all counted as this process's.
  constexpr std::size_t piece = std::size_t{16} << 20;
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash(XXH3_createState(), &XXH3_freeState);
  require(hash != nullptr && XXH3_64bits_reset(hash.get()) == XXH_OK, "{}: no memory for a checksum", file);
  std::size_t beyond = tokens.size();
  for (std::size_t begin = 0; begin < tokens.size(); begin += piece) {
    const auto part = tokens.subspan(begin, std::min(piece, tokens.size() - begin));
    XXH3_64bits_update(hash.get(), part.data(), part.size_bytes());
    const std::size_t at = first_beyond(part, header.vocab);
    if (beyond == tokens.size() && at < part.size()) beyond = begin + at;
    map.forget();
  }
  if (XXH3_64bits_digest(hash.get()) != header.payload_checksum) {
    fail(ErrorKind::Data, "{}: damaged token shard: the checksum of its {} tokens does not match", file, tokens.size());
  }
  if (beyond < tokens.size()) {
    fail(ErrorKind::Data, "{}: token {} at position {} is beyond the vocabulary of {}", file, tokens[beyond], beyond,
         header.vocab);
  }
}

}  // namespace

const char* name_of(Split split) {
  return split == Split::Train ? "train" : "valid";
}

std::string shard_name(Split split, std::int64_t n) {
  return fmt::format("{}-{:05}{}", name_of(split), n, token_shard::kExtension);
}

TokenShard::TokenShard(const fs::path& file) : map_(file) {
  const token_shard::Header header = token_shard::parse_header(map_.bytes(), file.string());
  tokens_ = static_cast<std::int64_t>(header.tokens);
  vocab_ = static_cast<std::int64_t>(header.vocab);
  token_bytes_ = header.token_bytes;
  if (token_bytes_ == 2) {
    check_tokens<std::uint16_t>(map_, header, file.string());
  } else {
    check_tokens<std::uint32_t>(map_, header, file.string());
  }
}

void TokenShard::read(std::int64_t first, std::span<std::int32_t> tokens) const {
  require(first >= 0 && first <= tokens_ - isize(tokens.size()), "tokens [{}, {}) of a shard that has {}", first,
          first + isize(tokens.size()), tokens_);
  if (token_bytes_ == 2) {
    std::ranges::copy(payload<std::uint16_t>(map_).subspan(usize(first), tokens.size()), tokens.begin());
  } else {
    std::memcpy(tokens.data(), payload<std::uint32_t>(map_).data() + first, tokens.size_bytes());
  }
}

TokenShards::TokenShards(std::vector<TokenShard> shards) : shards_(std::move(shards)), starts_{0} {
  for (const TokenShard& shard : shards_) {
    starts_.push_back(starts_.back() + shard.tokens());
    vocab_ = std::max(vocab_, shard.vocab());
  }
}

std::shared_ptr<const TokenShards> TokenShards::open(const fs::path& path, Split split) {
  std::vector<TokenShard> shards;
  if (!fs::is_directory(path)) {
    shards.emplace_back(path);
    return std::make_shared<TokenShards>(std::move(shards));
  }
  const CorpusMeta meta = read_meta(path);
  const SplitMeta& says = split == Split::Train ? meta.train : meta.valid;
  for (std::int64_t n = 0; n < says.shards; ++n) {
    const fs::path file = path / shard_name(split, n);
    if (!fs::exists(file)) {
      fail(ErrorKind::Data, "{}: missing; {} names {} {} shards", file.string(), (path / kMetaName).string(),
           says.shards, name_of(split));
    }
    shards.emplace_back(file);
    if (shards.back().vocab() != meta.vocab) {
      fail(ErrorKind::Data, "{}: vocabulary {}, and {} says {}: the files are of different corpora", file.string(),
           shards.back().vocab(), (path / kMetaName).string(), meta.vocab);
    }
  }
  auto opened = std::make_shared<TokenShards>(std::move(shards));
  if (opened->tokens() != says.tokens) {
    fail(ErrorKind::Data, "{}: the {} shards hold {} tokens, and {} says {}: the files are of different corpora",
         path.string(), name_of(split), opened->tokens(), kMetaName, says.tokens);
  }
  opened->vocab_ = meta.vocab;
  return opened;
}

void TokenShards::read(std::int64_t first, std::span<std::int32_t> tokens) const {
  require(first >= 0 && first <= this->tokens() - isize(tokens.size()), "tokens [{}, {}) of a split that has {}", first,
          first + isize(tokens.size()), this->tokens());
  auto shard = usize(std::upper_bound(starts_.begin() + 1, starts_.end(), first) - starts_.begin() - 1);
  while (!tokens.empty()) {
    const std::int64_t here = std::min(isize(tokens.size()), starts_[shard + 1] - first);
    shards_[shard].read(first - starts_[shard], tokens.first(usize(here)));
    tokens = tokens.subspan(usize(here));
    first += here;
    ++shard;
  }
}

}  // namespace switchyard
