// A shuffle of [0, n) that needs no memory: position -> index is computed, and is a bijection.
//
// A Feistel network over the smallest even number of bits that holds n permutes a power of two; values that fall
// outside [0, n) are sent through it again until they fall inside ("cycle walking": Black and Rogaway, Ciphers with
// Arbitrary Finite Domains, 2002). At most four rounds of walking are needed on average.
#pragma once

#include <array>
#include <cstdint>

namespace switchyard {

class Permutation {
 public:
  // Of [0, n), n >= 1. Another key or another stream gives another shuffle.
  Permutation(std::int64_t n, std::uint64_t key, std::uint64_t stream);

  std::int64_t operator()(std::int64_t position) const;  // position in [0, n)

 private:
  static constexpr int kRounds = 8;

  std::uint64_t n_;
  int half_bits_;
  std::array<std::uint64_t, kRounds> round_keys_;
};

// A 64-bit value in which every bit of `value` and `key` has had its say.
std::uint64_t mix64(std::uint64_t value, std::uint64_t key);

}  // namespace switchyard
