// The vector form of exact sums, for kernels that add a partial while it is in cache. Included once for each SIMD
// target, as Highway's headers are.
#if defined(SWITCHYARD_EXACT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_EXACT_INL_H_
#undef SWITCHYARD_EXACT_INL_H_
#else
#define SWITCHYARD_EXACT_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

inline constexpr double fixed_scale = 0x1p50;
// Added to a double of magnitude up to 2^51, it leaves the rounded integer (nearest, ties to even) in the low bits.
inline constexpr double round_magic = 0x1.8p52;

// fixed(x) for |x| < 2: x * 2^50 lies within round_magic's reach.
template <class DI, class V>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<DI> fixed_of_small(DI di, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToFloat<DI> d;
  const auto magic = hn::Set(d, round_magic);
  return hn::Sub(hn::BitCast(di, hn::MulAdd(x, hn::Set(d, fixed_scale), magic)), hn::BitCast(di, magic));
}

// fixed(x) for |x| < 8192, in two steps: whole multiples of 2^32, which are even, and what is left of them.
template <class DI, class V>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<DI> fixed_of_any(DI di, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToFloat<DI> d;
  const auto magic = hn::Set(d, round_magic);
  const auto integer = [&](auto shifted) { return hn::Sub(hn::BitCast(di, shifted), hn::BitCast(di, magic)); };
  const auto scaled = hn::Mul(x, hn::Set(d, fixed_scale));
  const auto high = hn::MulAdd(scaled, hn::Set(d, 0x1p-32), magic);
  const auto low = hn::NegMulAdd(hn::Sub(high, magic), hn::Set(d, 0x1p32), scaled);
  return hn::Add(hn::ShiftLeft<32>(integer(high)), integer(hn::Add(low, magic)));
}

// One vector of exact_add. False where a partial was left out.
template <class D>
HWY_INLINE bool exact_add_vector(D d, std::int64_t* sum, const float* x, float limit) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Half<D> half;
  const hn::Rebind<double, decltype(half)> dd;
  const hn::RebindToSigned<decltype(dd)> di;
  const std::size_t lanes = hn::Lanes(half);
  const auto limits = hn::Set(d, limit);
  const auto partial = hn::LoadU(d, x);
  const auto magnitude = hn::Abs(partial);
  const auto add = [&](std::int64_t* to, auto fixed) { hn::StoreU(hn::Add(hn::LoadU(di, to), fixed), di, to); };
#if HWY_TARGET <= HWY_AVX3
  // One instruction rounds to 64-bit integers, to nearest even as everything here; x * 2^50 is exact in fp32.
  const auto allowed = hn::Lt(magnitude, limits);  // false for NaN
  const auto scaled = hn::Mul(hn::IfThenElseZero(allowed, partial), hn::Set(d, static_cast<float>(fixed_scale)));
  using Fixed = hn::Vec<decltype(di)>;
  add(sum, Fixed{_mm512_cvtps_epi64(hn::LowerHalf(half, scaled).raw)});
  add(sum + lanes, Fixed{_mm512_cvtps_epi64(hn::UpperHalf(half, scaled).raw)});
  return hn::AllTrue(d, allowed);
#else
  if (hn::AllTrue(d, hn::Lt(magnitude, hn::Set(d, std::min(limit, 2.0f))))) [[likely]] {
    add(sum, fixed_of_small(di, hn::PromoteTo(dd, hn::LowerHalf(half, partial))));
    add(sum + lanes, fixed_of_small(di, hn::PromoteTo(dd, hn::UpperHalf(half, partial))));
    return true;
  }
  const auto allowed = hn::Lt(magnitude, limits);  // false for NaN
  const auto kept = hn::IfThenElseZero(allowed, partial);
  add(sum, fixed_of_any(di, hn::PromoteTo(dd, hn::LowerHalf(half, kept))));
  add(sum + lanes, fixed_of_any(di, hn::PromoteTo(dd, hn::UpperHalf(half, kept))));
  return hn::AllTrue(d, allowed);
#endif
}

// sum[i] += fixed(x[i]) for i < n. False where a partial was NaN or reached the limit and so was left out.
HWY_INLINE bool exact_add_row(std::int64_t* sum, const float* x, std::int64_t n, float limit) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<float, 16> d;
  constexpr std::int64_t lanes = hn::MaxLanes(hn::CappedTag<float, 16>());
  bool all = true;
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) all &= exact_add_vector(d, sum + i, x + i, limit);
  if (i < n) {
    const std::size_t rest = static_cast<std::size_t>(n - i);
    HWY_ALIGN float partial[lanes] = {};
    HWY_ALIGN std::int64_t total[lanes] = {};
    std::memcpy(partial, x + i, rest * sizeof(float));
    std::memcpy(total, sum + i, rest * sizeof(std::int64_t));
    all &= exact_add_vector(d, total, partial, limit);
    std::memcpy(sum + i, total, rest * sizeof(std::int64_t));
  }
  return all;
}

}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SWITCHYARD_EXACT_INL_H_
