// The 64 bytes at the head of a token shard (token_shard.h has the table), to bytes and back.
#pragma once

#include "data/loader/token_shard.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace switchyard::token_shard {

struct Header {
  std::uint32_t token_bytes = 2;
  std::uint64_t tokens = 0;
  std::uint64_t vocab = 0;
  std::uint64_t payload_checksum = 0;
};

std::array<std::byte, kHeaderBytes> to_bytes(const Header& header);

// Throws Error(Data) that begins with `file` where `bytes`, a whole file, is truncated, foreign, of another version, or
// has a header that is damaged or does not fit the file's size. The tokens themselves are not looked at.
Header parse_header(std::span<const std::byte> bytes, const std::string& file);

}  // namespace switchyard::token_shard
