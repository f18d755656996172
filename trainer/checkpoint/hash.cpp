#include "trainer/checkpoint/hash.h"

#include "comm/base/error.h"
#include "comm/base/ids.h"

#include <xxhash.h>

namespace switchyard::checkpoint {
namespace {

detail::HashState make_state() {
  detail::HashState state(XXH3_createState());
  require(state != nullptr, "out of memory for a hash state");
  return state;
}

}  // namespace

void detail::FreeHashState::operator()(XXH3_state_s* state) const {
  XXH3_freeState(state);
}

std::uint64_t hash64(const void* data, std::int64_t bytes) {
  return XXH3_64bits(data, usize(bytes));
}

Hash128 hash128(std::string_view text) {
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return {hash.high64, hash.low64};
}

Hash64Stream::Hash64Stream() : state_(make_state()) {
  XXH3_64bits_reset(state_.get());
}
void Hash64Stream::add(const void* data, std::int64_t bytes) {
  XXH3_64bits_update(state_.get(), data, usize(bytes));
}
std::uint64_t Hash64Stream::result() const {
  return XXH3_64bits_digest(state_.get());
}

Hash128Stream::Hash128Stream() : state_(make_state()) {
  XXH3_128bits_reset(state_.get());
}
void Hash128Stream::add(const void* data, std::int64_t bytes) {
  XXH3_128bits_update(state_.get(), data, usize(bytes));
}
Hash128 Hash128Stream::result() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
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
