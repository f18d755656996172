// The kernels of one row. All that a vector width could change is kept out of them: elementwise work is the same in
// every lane, and the one reduction, a block's largest magnitude, is of integers.
#include "comm/base/ids.h"
#include "comm/exchange/wire.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "comm/exchange/wire_row.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::CappedTag<float, 16>;
using I32 = hn::RebindToSigned<F32>;
using U32 = hn::RebindToUnsigned<F32>;
using U16 = hn::Rebind<std::uint16_t, F32>;
using I8 = hn::Rebind<std::int8_t, F32>;
using VecF32 = hn::Vec<F32>;
constexpr std::int64_t lanes = hn::MaxLanes(F32());

enum class Into { Set, Add };

template <Into into>
HWY_INLINE void put(VecF32 value, float* to) {
  if constexpr (into == Into::Add) value = hn::Add(hn::LoadU(F32(), to), value);
  hn::StoreU(value, F32(), to);
}

// code(vector of numbers, where its codes go) for the n numbers of x; beyond them the last vector holds zeros.
template <class Code, class F>
HWY_INLINE void for_vectors(const float* x, std::int64_t n, Code* codes, const F& code) {
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) code(hn::LoadU(F32(), x + i), codes + i);
  if (i == n) return;
  alignas(64) float part[lanes] = {};
  alignas(64) Code part_codes[lanes] = {};
  std::memcpy(part, x + i, usize(n - i) * sizeof(float));
  code(hn::Load(F32(), part), part_codes);
  std::memcpy(codes + i, part_codes, usize(n - i) * sizeof(Code));
}

// The other way: x[i] = or += what number(where its codes are) returns.
template <Into into, class Code, class F>
HWY_INLINE void for_codes(const Code* codes, std::int64_t n, float* x, const F& number) {
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) put<into>(number(codes + i), x + i);
  if (i == n) return;
  alignas(64) float part[lanes] = {};
  alignas(64) Code part_codes[lanes] = {};
  std::memcpy(part_codes, codes + i, usize(n - i) * sizeof(Code));
  std::memcpy(part, x + i, usize(n - i) * sizeof(float));
  put<into>(number(part_codes), part);
  std::memcpy(x + i, part, usize(n - i) * sizeof(float));
}

void encode_bf16(const float* row, std::int64_t width, std::byte* out) {
  auto* const codes = reinterpret_cast<std::uint16_t*>(out);
  for_vectors(row, width, codes, [](VecF32 x, std::uint16_t* to) HWY_ATTR {
    const U32 u;
    const auto bits = hn::BitCast(u, x);
    const auto high = hn::ShiftRight<16>(bits);
    const auto half = hn::Add(hn::And(high, hn::Set(u, 1)), hn::Set(u, 0x7fff));  // a tie goes to the even neighbour
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, half));
    const auto quiet = hn::Or(high, hn::Set(u, 0x40));  // not a NaN whose bits lie in the lower half only
    const auto code = hn::IfThenElse(hn::RebindMask(u, hn::IsNaN(x)), quiet, rounded);
    hn::StoreU(hn::DemoteTo(U16(), hn::BitCast(I32(), code)), U16(), to);
  });
  if (width % 2 != 0) codes[width] = 0;
}

template <Into into>
HWY_INLINE void decode_bf16_into(const std::byte* in, std::int64_t width, float* row) {
  for_codes<into>(reinterpret_cast<const std::uint16_t*>(in), width, row, [](const std::uint16_t* from) HWY_ATTR {
    return hn::BitCast(F32(), hn::ShiftLeft<16>(hn::PromoteTo(U32(), hn::LoadU(U16(), from))));
  });
}
void decode_bf16(const std::byte* in, std::int64_t width, float* row) {
  decode_bf16_into<Into::Set>(in, width, row);
}
void add_bf16(const std::byte* in, std::int64_t width, float* sum) {
  decode_bf16_into<Into::Add>(in, width, sum);
}

// The bits of the largest magnitude. As integers they order like the numbers, with Inf above them and NaN above Inf.
HWY_INLINE std::int32_t largest_bits(const float* x, std::int64_t n) {
  auto top = hn::Zero(I32());
  const auto take = [&](VecF32 v) HWY_ATTR { top = hn::Max(top, hn::BitCast(I32(), hn::Abs(v))); };
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) take(hn::LoadU(F32(), x + i));
  if (i < n) {
    alignas(64) float part[lanes] = {};
    std::memcpy(part, x + i, usize(n - i) * sizeof(float));
    take(hn::Load(F32(), part));
  }
  return hn::GetLane(hn::MaxOfLanes(I32(), top));
}

// From here up a scale and its inverse are far from the ends of fp32. 127 * 2^-107: what is coded on either side of it
// decodes to the same side.
constexpr float smallest_usual = 0x1.fcp-101f;

// Blocks of zeros, of numbers next to the denormal ones, and with an Inf or a NaN.
float encode_unusual(const float* x, std::int64_t n, float largest, std::int8_t* codes) {
  std::fill_n(codes, n, std::int8_t{0});
  if (largest == 0) return 0;
  if (!std::isfinite(largest)) return std::bit_cast<float>(0x7fc00000);
  double scale = 0x1p-149;
  while (127 * scale < static_cast<double>(largest)) scale *= 2;
  for (std::int64_t i = 0; i < n; ++i) {
    codes[i] = static_cast<std::int8_t>(std::nearbyint(static_cast<double>(x[i]) / scale));
  }
  return static_cast<float>(scale);
}

float encode_block(const float* x, std::int64_t n, std::int8_t* codes) {
  const auto largest = std::bit_cast<float>(largest_bits(x, n));
  if (!(largest >= smallest_usual && std::isfinite(largest))) [[unlikely]]
    return encode_unusual(x, n, largest, codes);
  constexpr std::uint32_t kept_bits = 0xffffff80;  // 17 of 24, and a code has 7: their product is exact
  const auto scale = std::bit_cast<float>(std::bit_cast<std::uint32_t>(largest / 127.0f) & kept_bits);
  const auto inverse = hn::Set(F32(), 1.0f / scale);
  for_vectors(x, n, codes, [&](VecF32 v, std::int8_t* to) HWY_ATTR {
    hn::StoreU(hn::DemoteTo(I8(), hn::NearestInt(hn::Mul(v, inverse))), I8(), to);
  });
  return scale;
}

std::int64_t blocks_of(std::int64_t width) {
  return (width + wire_block - 1) / wire_block;
}

void encode_i8(const float* row, std::int64_t width, std::byte* out) {
  const std::int64_t blocks = blocks_of(width);
  auto* const codes = reinterpret_cast<std::int8_t*>(out + 4 * blocks);
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t begin = b * wire_block;
    const float scale = encode_block(row + begin, std::min(wire_block, width - begin), codes + begin);
    std::memcpy(out + 4 * b, &scale, sizeof scale);
  }
  for (std::int64_t c = width; c % 4 != 0; ++c) codes[c] = 0;
}

template <Into into>
HWY_INLINE void decode_i8_into(const std::byte* in, std::int64_t width, float* row) {
  const std::int64_t blocks = blocks_of(width);
  const auto* const codes = reinterpret_cast<const std::int8_t*>(in + 4 * blocks);
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t begin = b * wire_block;
    float scale;
    std::memcpy(&scale, in + 4 * b, sizeof scale);
    const auto scales = hn::Set(F32(), scale);
    for_codes<into>(codes + begin, std::min(wire_block, width - begin), row + begin,
                    [&](const std::int8_t* from) HWY_ATTR {
                      return hn::Mul(hn::ConvertTo(F32(), hn::PromoteTo(I32(), hn::LoadU(I8(), from))), scales);
                    });
  }
}
void decode_i8(const std::byte* in, std::int64_t width, float* row) {
  decode_i8_into<Into::Set>(in, width, row);
}
void add_i8(const std::byte* in, std::int64_t width, float* sum) {
  decode_i8_into<Into::Add>(in, width, sum);
}

}  // namespace
// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard {
namespace {
HWY_EXPORT(encode_bf16);
HWY_EXPORT(decode_bf16);
HWY_EXPORT(add_bf16);
HWY_EXPORT(encode_i8);
HWY_EXPORT(decode_i8);
HWY_EXPORT(add_i8);
}  // namespace

void encode_row(Wire wire, const float* row, std::int64_t width, std::byte* out) {
  switch (wire) {
    case Wire::F32:
      if (width > 0) std::memcpy(out, row, usize(width) * sizeof(float));
      return;
    case Wire::BF16:
      HWY_DYNAMIC_DISPATCH(encode_bf16)(row, width, out);
      return;
    case Wire::I8:
      HWY_DYNAMIC_DISPATCH(encode_i8)(row, width, out);
      return;
  }
}

void decode_row(Wire wire, const std::byte* in, std::int64_t width, float* row) {
  switch (wire) {
    case Wire::F32:
      if (width > 0) std::memcpy(row, in, usize(width) * sizeof(float));
      return;
    case Wire::BF16:
      HWY_DYNAMIC_DISPATCH(decode_bf16)(in, width, row);
      return;
    case Wire::I8:
      HWY_DYNAMIC_DISPATCH(decode_i8)(in, width, row);
      return;
  }
}

void add_decoded(Wire wire, const std::byte* in, std::int64_t width, float* sum) {
  switch (wire) {
    case Wire::F32: {
      const auto* const row = reinterpret_cast<const float*>(in);
      for (std::int64_t c = 0; c < width; ++c) sum[c] += row[c];
      return;
    }
    case Wire::BF16:
      HWY_DYNAMIC_DISPATCH(add_bf16)(in, width, sum);
      return;
    case Wire::I8:
      HWY_DYNAMIC_DISPATCH(add_i8)(in, width, sum);
      return;
  }
}

void round_row(Wire wire, float* row, std::int64_t width) {
  if (wire == Wire::F32) return;
  constexpr std::int64_t piece = 8 * wire_block;  // blocks are coded each by itself
  alignas(64) std::byte coded[2 * piece];         // what bf16 takes; int8 takes less
  for (std::int64_t begin = 0; begin < width; begin += piece) {
    const std::int64_t n = std::min(piece, width - begin);
    encode_row(wire, row + begin, n, coded);
    decode_row(wire, coded, n, row + begin);
  }
}

}  // namespace switchyard
#endif
