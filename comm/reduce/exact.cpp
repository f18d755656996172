#include "comm/reduce/exact.h"

#include "comm/base/error.h"

#include <bit>
#include <cmath>

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "comm/reduce/exact.cpp"
#include <hwy/foreach_target.h>  // before whatever is compiled once a target
#include "comm/reduce/exact-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

bool add_block(std::int64_t* sum, const float* x, std::int64_t n, float limit) {
  return exact_add_row(sum, x, n, limit);
}

void to_float_block(const std::int64_t* sum, std::int64_t n, double factor, float* x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<double, 8> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<float, decltype(d)> df;
  constexpr std::int64_t lanes = hn::MaxLanes(hn::CappedTag<double, 8>());
  const auto convert = [&](const std::int64_t* from, float* to) {
    hn::StoreU(hn::DemoteTo(df, hn::Mul(hn::ConvertTo(d, hn::LoadU(di, from)), hn::Set(d, factor))), df, to);
  };
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) convert(sum + i, x + i);
  if (i < n) {
    const std::size_t rest = static_cast<std::size_t>(n - i);
    HWY_ALIGN std::int64_t from[lanes] = {};
    HWY_ALIGN float to[lanes];
    std::memcpy(from, sum + i, rest * sizeof(std::int64_t));
    convert(from, to);
    std::memcpy(x + i, to, rest * sizeof(float));
  }
}

}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard {
namespace {
HWY_EXPORT(add_block);
HWY_EXPORT(to_float_block);

constexpr std::int64_t block = 1 << 14;  // elements that a thread takes at a time
}  // namespace

float exact_limit(std::int64_t contributions) {
  require(contributions > 0, "an exact sum of {} partials was asked for", contributions);
  // ceil(log2(contributions)) is the number of bits that the sum may grow by.
  const int growth = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(contributions - 1)));
  return std::ldexp(1.0f, 63 - exact_fraction_bits - growth);
}

void exact_add(std::int64_t* sum, const float* x, std::int64_t n, float limit, std::atomic<bool>& non_finite) {
  bool all = true;
#pragma omp parallel for schedule(static) reduction(&& : all) if (n > 4 * block)
  for (std::int64_t begin = 0; begin < n; begin += block) {
    all = HWY_DYNAMIC_DISPATCH(add_block)(sum + begin, x + begin, std::min(block, n - begin), limit) && all;
  }
  if (!all) non_finite.store(true, std::memory_order_relaxed);
}

void exact_to_float(const std::int64_t* sum, std::int64_t n, double scale, float* x) {
  const double factor = std::ldexp(scale, -exact_fraction_bits);
#pragma omp parallel for schedule(static) if (n > 4 * block)
  for (std::int64_t begin = 0; begin < n; begin += block) {
    HWY_DYNAMIC_DISPATCH(to_float_block)(sum + begin, std::min(block, n - begin), factor, x + begin);
  }
}

}  // namespace switchyard
#endif
