#include "trainer/checkpoint/hash_file.h"

#include "comm/base/ids.h"

#include <algorithm>
#include <memory>
#include <vector>

#include <xxhash.h>

namespace switchyard::checkpoint {
namespace {

constexpr std::int64_t piece_bytes = 1 << 20;  // stays in the second-level cache between the read and the hash

struct FreeState {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};
using State = std::unique_ptr<XXH3_state_t, FreeState>;

State make_state() {
  State state(XXH3_createState());
  require(state != nullptr, "out of memory for a hash state");
  return state;
}

// Calls update(data, bytes) for the pieces of [offset, end); gives where it came to.
template <class Update>
std::int64_t for_pieces(const FileDescriptor& file, const std::filesystem::path& path, std::int64_t offset,
                        std::int64_t end, const Update& update) {
  std::vector<char> piece(usize(std::clamp<std::int64_t>(end - offset, 0, piece_bytes)));
  while (offset < end) {
    const std::int64_t got = read_at(file, path, piece.data(), std::min(isize(piece.size()), end - offset), offset);
    if (got == 0) break;
    update(piece.data(), usize(got));
    offset += got;
  }
  return offset;
}

}  // namespace

std::uint64_t hash64(const void* data, std::int64_t bytes) {
  return XXH3_64bits(data, usize(bytes));
}

Hash128 hash128(std::string_view text) {
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return {hash.high64, hash.low64};
}

std::optional<std::uint64_t> hash64_of_file_part(const FileDescriptor& file, const std::filesystem::path& path,
                                                 std::int64_t offset, std::int64_t bytes) {
  const State state = make_state();
  XXH3_64bits_reset(state.get());
  const std::int64_t end = for_pieces(file, path, offset, offset + bytes, [&](const char* data, std::size_t count) {
    XXH3_64bits_update(state.get(), data, count);
  });
  if (end != offset + bytes) return std::nullopt;
  return XXH3_64bits_digest(state.get());
}

Hash128 hash128_of_file(const FileDescriptor& file, const std::filesystem::path& path) {
  const State state = make_state();
  XXH3_128bits_reset(state.get());
  for_pieces(file, path, 0, size_of_file(file, path),
             [&](const char* data, std::size_t count) { XXH3_128bits_update(state.get(), data, count); });
  const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
  return {hash.high64, hash.low64};
}

std::string to_hex(std::uint64_t hash) {
  return fmt::format("{:016x}", hash);
}
std::string to_hex(const Hash128& hash) {
  return to_hex(hash.high) + to_hex(hash.low);
}

std::optional<std::uint64_t> hash64_of_hex(std::string_view text) {
  if (text.size() != 16) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : text) {
    if (c >= '0' && c <= '9')
      value = value * 16 + static_cast<std::uint64_t>(c - '0');
    else if (c >= 'a' && c <= 'f')
      value = value * 16 + static_cast<std::uint64_t>(c - 'a' + 10);
    else
      return std::nullopt;
  }
  return value;
}

std::optional<Hash128> hash128_of_hex(std::string_view text) {
  if (text.size() != 32) return std::nullopt;
  const auto high = hash64_of_hex(text.substr(0, 16));
  const auto low = hash64_of_hex(text.substr(16));
  if (!high || !low) return std::nullopt;
  return Hash128{*high, *low};
}

}  // namespace switchyard::checkpoint
