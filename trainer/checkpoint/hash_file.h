// The checksums of a checkpoint: XXH3-64 of a tensor as it lies in memory, XXH3-128 of a whole file.
#pragma once

#include "trainer/checkpoint/files.h"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace switchyard::checkpoint {

struct Hash128 {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  bool operator==(const Hash128&) const = default;
};

std::uint64_t hash64(const void* data, std::int64_t bytes);
Hash128 hash128(std::string_view text);
// Of `bytes` bytes from `offset`, read in pieces: a file that shrinks meanwhile is an error, never a signal as it would
// be with mapped memory. Nothing where the file ends before.
std::optional<std::uint64_t> hash64_of_file_part(const FileDescriptor& file, const std::filesystem::path& path,
                                                 std::int64_t offset, std::int64_t bytes);
Hash128 hash128_of_file(const FileDescriptor& file, const std::filesystem::path& path);

std::string to_hex(std::uint64_t hash);   // 16 digits
std::string to_hex(const Hash128& hash);  // 32 digits, as xxhsum -H2 prints it
std::optional<std::uint64_t> hash64_of_hex(std::string_view text);
std::optional<Hash128> hash128_of_hex(std::string_view text);

}  // namespace switchyard::checkpoint
