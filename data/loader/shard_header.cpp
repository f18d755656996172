#include "data/loader/shard_header.h"

#include "comm/base/error.h"

#include <bit>
#include <cstring>

#include <xxhash.h>

namespace switchyard::token_shard {
namespace {

static_assert(std::endian::native == std::endian::little, "token shards are little-endian and mapped as they are");

constexpr std::size_t kVersionAt = 8, kTokenBytesAt = 12, kTokensAt = 16, kVocabAt = 24, kPayloadChecksumAt = 32,
                      kHeaderChecksumAt = 56;
// A token is an int32 to the rest of the program.
constexpr std::uint64_t kLargestVocab = std::uint64_t{1} << 31;

template <class T>
T get(std::span<const std::byte> bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

template <class T>
void put(std::span<std::byte> bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

}  // namespace

std::array<std::byte, kHeaderBytes> to_bytes(const Header& header) {
  std::array<std::byte, kHeaderBytes> bytes{};
  std::memcpy(bytes.data(), kMagic, sizeof(kMagic));
  put(std::span(bytes), kVersionAt, kVersion);
  put(std::span(bytes), kTokenBytesAt, header.token_bytes);
  put(std::span(bytes), kTokensAt, header.tokens);
  put(std::span(bytes), kVocabAt, header.vocab);
  put(std::span(bytes), kPayloadChecksumAt, header.payload_checksum);
  put(std::span(bytes), kHeaderChecksumAt, std::uint64_t{XXH3_64bits(bytes.data(), kHeaderChecksumAt)});
  return bytes;
}

Header parse_header(std::span<const std::byte> bytes, const std::string& file) {
  const auto refuse = [&]<class... Args>(fmt::format_string<Args...> format, Args&&... args) {
    fail(ErrorKind::Data, "{}: {}", file, fmt::format(format, std::forward<Args>(args)...));
  };
  const std::size_t comparable = std::min(bytes.size(), sizeof(kMagic));
  if (bytes.empty()) refuse("empty file, not a token shard");
  if (std::memcmp(bytes.data(), kMagic, comparable) != 0) {
    refuse("not a token shard (it does not begin with the magic bytes that `switchyard prepare` writes)");
  }
  if (bytes.size() < kHeaderBytes) {
    refuse("truncated token shard: {} bytes, and the header alone has {}", bytes.size(), kHeaderBytes);
  }
  // The version comes before the header's checksum: another version may keep it elsewhere.
  const auto version = get<std::uint32_t>(bytes, kVersionAt);
  if (version != kVersion) {
    refuse("token shard of format version {}; this program reads version {}: prepare the text again", version,
           kVersion);
  }
  if (get<std::uint64_t>(bytes, kHeaderChecksumAt) != XXH3_64bits(bytes.data(), kHeaderChecksumAt)) {
    refuse("damaged token shard: the header's checksum does not match");
  }
  const Header header{.token_bytes = get<std::uint32_t>(bytes, kTokenBytesAt),
                      .tokens = get<std::uint64_t>(bytes, kTokensAt),
                      .vocab = get<std::uint64_t>(bytes, kVocabAt),
                      .payload_checksum = get<std::uint64_t>(bytes, kPayloadChecksumAt)};
  if (header.vocab == 0 || header.vocab > kLargestVocab) refuse("token shard with a vocabulary of {}", header.vocab);
  if (header.token_bytes != 2 && header.token_bytes != 4) {
    refuse("token shard with {} bytes a token; 2 and 4 are known", header.token_bytes);
  }
  const std::size_t payload = bytes.size() - kHeaderBytes;
  // Compared by division: the product of a lying count could wrap around.
  if (header.tokens > payload / header.token_bytes) {
    refuse("truncated token shard: the header says {} tokens of {} bytes, and {} bytes follow it", header.tokens,
           header.token_bytes, payload);
  }
  if (header.tokens * header.token_bytes != payload) {
    refuse("token shard with {} bytes too many behind its {} tokens", payload - header.tokens * header.token_bytes,
           header.tokens);
  }
  return header;
}

}  // namespace switchyard::token_shard
