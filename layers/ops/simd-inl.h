// What the vectorised ops share: walking along a row, sums in one fixed order, and the exponential.
//
// The same bits come out for every vector width. Elementwise work is the same operations in the same order in each
// lane; a sum has `logical_lanes` running sums, element i in lane i mod logical_lanes, joined by a fixed tree, and they
// are held in as many vectors as the target needs for them.
//
// Included once a target (Highway's foreach_target.h), hence the toggling guard.
#if defined(SWITCHYARD_LAYERS_OPS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_LAYERS_OPS_SIMD_INL_H_
#undef SWITCHYARD_LAYERS_OPS_SIMD_INL_H_
#else
#define SWITCHYARD_LAYERS_OPS_SIMD_INL_H_
#endif

#include "hwy/highway.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t logical_lanes = 32;

using F32 = hn::CappedTag<float, logical_lanes>;
using I32 = hn::RebindToSigned<F32>;
using VecF32 = hn::Vec<F32>;

HWY_INLINE constexpr std::size_t lanes() {
  return hn::MaxLanes(F32());
}
static_assert(logical_lanes % hn::MaxLanes(F32()) == 0);

// Where a vector lies in a row: `Whole` is in it entirely; of `Part` only the first `count` lanes are, the others are
// read as zeros and not written.
struct Whole {
  std::size_t i;
  HWY_INLINE VecF32 load(const float* p) const { return hn::LoadU(F32(), p + i); }
  HWY_INLINE void store(VecF32 v, float* p) const { hn::StoreU(v, F32(), p + i); }
  HWY_INLINE VecF32 keep(VecF32 v) const { return v; }
};
struct Part {
  std::size_t i;
  std::size_t count;
  // v within the row, zero beyond it.
  HWY_INLINE VecF32 keep(VecF32 v) const { return hn::IfThenElseZero(hn::FirstN(F32(), count), v); }
  HWY_INLINE VecF32 load(const float* p) const {
#if HWY_MEM_OPS_MIGHT_FAULT
    alignas(64) float lane[hn::MaxLanes(F32())] = {};
    for (std::size_t n = 0; n < count; ++n) lane[n] = p[i + n];
    return hn::Load(F32(), lane);
#else
    return hn::MaskedLoad(hn::FirstN(F32(), count), F32(), p + i);
#endif
  }
  HWY_INLINE void store(VecF32 v, float* p) const {
#if HWY_MEM_OPS_MIGHT_FAULT
    alignas(64) float lane[hn::MaxLanes(F32())];
    hn::Store(v, F32(), lane);
    for (std::size_t n = 0; n < count; ++n) p[i + n] = lane[n];
#else
    hn::BlendedStore(v, hn::FirstN(F32(), count), F32(), p + i);
#endif
  }
};

// Calls f(at) for each vector of a row of n elements; `at` is a Whole or a Part:
//   for_lanes(n, [&](auto at) HWY_ATTR { at.store(hn::Add(at.load(x), at.load(y)), y); });
template <class F>
HWY_INLINE void for_lanes(std::size_t n, const F& f) {
  std::size_t i = 0;
  for (; i + lanes() <= n; i += lanes()) f(Whole{i});
  if (i < n) f(Part{i, n - i});
}

// The lanes of one vector added as a tree: lane l and l + N / 2, and so on down to one.
template <class D>
HWY_INLINE float sum_tree(D /*d*/, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) > 4) {
    const hn::Half<D> half;
    return sum_tree(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else {
    const auto pair = hn::Add(v, hn::Shuffle1032(v));
    return hn::GetLane(hn::Add(pair, hn::Shuffle2301(pair)));
  }
}
template <class D>
HWY_INLINE float max_tree(D /*d*/, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) > 4) {
    const hn::Half<D> half;
    return max_tree(half, hn::Max(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else {
    const auto pair = hn::Max(v, hn::Shuffle1032(v));
    return hn::GetLane(hn::Max(pair, hn::Shuffle2301(pair)));
  }
}

// The running sums of `logical_lanes` lanes.
class LaneSums {
 public:
  HWY_INLINE LaneSums() {
    for (VecF32& part : parts_) part = hn::Zero(F32());
  }
  HWY_INLINE VecF32& part(std::size_t i) { return parts_[i]; }
  HWY_INLINE float total() const {
    VecF32 level[parts];
    for (std::size_t p = 0; p < parts; ++p) level[p] = parts_[p];
    for (std::size_t n = parts / 2; n > 0; n /= 2) {
      for (std::size_t p = 0; p < n; ++p) level[p] = hn::Add(level[p], level[p + n]);
    }
    return sum_tree(F32(), level[0]);
  }
  static constexpr std::size_t parts = logical_lanes / hn::MaxLanes(F32());

 private:
  VecF32 parts_[parts];
};

// Sum over a row of n elements of what f adds to a running sum: f(at, sum) returns the new sum of those lanes, and must
// leave it as it is where it reads zeros.
//   float dot = sum_over(n, [&](auto at, VecF32 sum) HWY_ATTR { return hn::MulAdd(at.load(x), at.load(y), sum); });
template <class F>
HWY_INLINE float sum_over(std::size_t n, const F& f) {
  LaneSums sums;
  std::size_t i = 0;
  for (; i + logical_lanes <= n; i += logical_lanes) {
    for (std::size_t p = 0; p < LaneSums::parts; ++p) sums.part(p) = f(Whole{i + p * lanes()}, sums.part(p));
  }
  for (std::size_t p = 0; i < n; ++p, i += lanes()) {
    sums.part(p) = n - i >= lanes() ? f(Whole{i}, sums.part(p)) : f(Part{i, n - i}, sums.part(p));
  }
  return sums.total();
}

namespace detail {

// (1 + f c1 + f^2 c2 + ... + f^6 c6) * 2^n, for n in [-126, 128] where the product is finite; `magic` is
// n + 1.5 * 2^23, so that its last bits are n.
HWY_INLINE VecF32 scaled_polynomial(VecF32 f, VecF32 magic, float c1, float c2, float c3, float c4, float c5,
                                    float c6) {
  const F32 d;
  VecF32 y = hn::MulAdd(hn::Set(d, c6), f, hn::Set(d, c5));
  y = hn::MulAdd(y, f, hn::Set(d, c4));
  y = hn::MulAdd(y, f, hn::Set(d, c3));
  y = hn::MulAdd(y, f, hn::Set(d, c2));
  y = hn::MulAdd(y, f, hn::Set(d, c1));
  y = hn::MulAdd(y, f, hn::Set(d, 1.0f));
  return hn::BitCast(d, hn::Add(hn::BitCast(I32(), y), hn::ShiftLeft<23>(hn::BitCast(I32(), magic))));
}

constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer

}  // namespace detail

// 2^t for t <= 0, about 1 ulp; exactly 1 for 0, and 0 below 2^-126. NaN stays NaN.
HWY_INLINE VecF32 exp2_nonpositive(VecF32 t) {
  const F32 d;
  const VecF32 lowest = hn::Set(d, -126.0f);
  const auto tiny = hn::Lt(t, lowest);
  t = hn::Max(lowest, t);
  const VecF32 magic = hn::Add(t, hn::Set(d, detail::round_magic));
  const VecF32 f = hn::Sub(t, hn::Sub(magic, hn::Set(d, detail::round_magic)));
  const VecF32 y = detail::scaled_polynomial(f, magic, 0.693147242f, 0.240226507f, 0.0555029735f, 0.00961803086f,
                                             0.00134100008f, 0.000154697322f);
  return hn::IfThenZeroElse(tiny, y);
}

// e^x for every x, about 1 ulp; infinity above ln(FLT_MAX), 0 where e^x is below 2^-126. NaN stays NaN.
HWY_INLINE VecF32 exp_lanes(VecF32 x) {
  const F32 d;
  const auto tiny = hn::Lt(x, hn::Set(d, -87.3365402f));
  const auto huge = hn::Gt(x, hn::Set(d, 88.7228317f));
  x = hn::Max(hn::Set(d, -87.3365402f), hn::Min(hn::Set(d, 88.7228317f), x));
  const VecF32 magic = hn::MulAdd(x, hn::Set(d, 1.44269504f), hn::Set(d, detail::round_magic));
  const VecF32 n = hn::Sub(magic, hn::Set(d, detail::round_magic));
  VecF32 f = hn::NegMulAdd(n, hn::Set(d, 0.693145751953125f), x);  // ln 2 in two parts, the first with 16 bits
  f = hn::NegMulAdd(n, hn::Set(d, 1.42860682e-6f), f);
  const VecF32 y = detail::scaled_polynomial(f, magic, 1.0f, 0.49999994f, 0.166665152f, 0.041668456f, 0.00836941879f,
                                             0.00138131448f);
  return hn::IfThenElse(huge, hn::Inf(d), hn::IfThenZeroElse(tiny, y));
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SWITCHYARD_LAYERS_OPS_SIMD_INL_H_
