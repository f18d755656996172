// The checksums of a checkpoint: XXH3-64 of a tensor's bytes, XXH3-128 of a whole file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

struct XXH3_state_s;

namespace switchyard::checkpoint {

struct Hash128 {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  bool operator==(const Hash128&) const = default;
};

std::uint64_t hash64(const void* data, std::int64_t bytes);
Hash128 hash128(std::string_view text);

// The same of bytes that come in pieces: Hash64Stream and Hash128Stream begin empty.
namespace detail {
struct FreeHashState {
  void operator()(XXH3_state_s* state) const;
};
using HashState = std::unique_ptr<XXH3_state_s, FreeHashState>;
}  // namespace detail

class Hash64Stream {
 public:
  Hash64Stream();
  void add(const void* data, std::int64_t bytes);
  std::uint64_t result() const;

 private:
  detail::HashState state_;
};

class Hash128Stream {
 public:
  Hash128Stream();
  void add(const void* data, std::int64_t bytes);
  Hash128 result() const;

 private:
  detail::HashState state_;
};

std::string to_hex(std::uint64_t hash);   // 16 digits
std::string to_hex(const Hash128& hash);  // 32 digits, as xxhsum -H2 prints it
std::optional<std::uint64_t> hash64_of_hex(std::string_view text);
std::optional<Hash128> hash128_of_hex(std::string_view text);

}  // namespace switchyard::checkpoint
