// The matrix products inside attention, on tiles that stay in the cache: packing, and one register-blocked kernel.
//
// Every element of a product is one chain of fused multiply-adds in ascending k, so how it is cut into tiles, which
// differs between targets, does not touch its bits.
//
// Included once a target (Highway's foreach_target.h), hence the toggling guard.
#if defined(SWITCHYARD_LAYERS_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_LAYERS_ATTENTION_TILE_INL_H_
#undef SWITCHYARD_LAYERS_ATTENTION_TILE_INL_H_
#else
#define SWITCHYARD_LAYERS_ATTENTION_TILE_INL_H_
#endif

#include "hwy/highway.h"
#include "layers/ops/simd-inl.h"

#include <algorithm>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

// Queries and keys are worked off in blocks of this many. The key blocks are part of what defines the bits of the
// result (the running softmax is rescaled once a block), so the number is the same for every target.
constexpr std::int64_t attention_block = 96;

// The kernel makes strip_rows x panel_width elements at a time: 24 accumulators of AVX-512's 32 registers, 12 of AVX2's
// 16. All block sizes are multiples of both.
constexpr std::int64_t vector_width = static_cast<std::int64_t>(lanes());
constexpr std::int64_t panel_width = 2 * vector_width;
constexpr std::int64_t strip_rows = vector_width >= 16 ? 12 : 6;
static_assert(attention_block % strip_rows == 0 && attention_block % panel_width == 0);
static_assert(attention_block % static_cast<std::int64_t>(logical_lanes) == 0 && strip_rows % 3 == 0);

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// The left operand of a product, element (r, k): in rows, p[r * stride + k], or in columns, p[k * stride + r].
class ByRows {
 public:
  HWY_INLINE ByRows(const float* p, std::int64_t stride) : stride_(stride) {
    for (std::int64_t g = 0; g < strip_rows / 3; ++g) p_[g] = p + 3 * g * stride;
  }
  // Three rows to a pointer: x86 addresses base, base + stride and base + 2 stride without further registers.
  HWY_INLINE float at(std::int64_t r) const { return p_[r / 3][(r % 3) * stride_]; }
  HWY_INLINE void step() {
    for (const float*& p : p_) ++p;
  }

 private:
  const float* p_[strip_rows / 3];
  std::int64_t stride_;
};
class ByColumns {
 public:
  HWY_INLINE ByColumns(const float* p, std::int64_t stride) : p_(p), stride_(stride) {}
  HWY_INLINE float at(std::int64_t r) const { return p_[r]; }
  HWY_INLINE void step() { p_ += stride_; }

 private:
  const float* p_;
  std::int64_t stride_;
};

// What a chain starts from: zero, the element that is there, or that element times its row's factor.
enum class Start { Zero, Memory, Scaled };

template <Start start, std::int64_t vectors, class Left>
HWY_INLINE void tile_product(std::int64_t n, Left left, const float* HWY_RESTRICT right, std::int64_t right_stride,
                             float* HWY_RESTRICT result, std::int64_t result_stride, const float* HWY_RESTRICT factor) {
  const F32 d;
  VecF32 sum[strip_rows][vectors];
  HWY_UNROLL(12)
  for (std::int64_t r = 0; r < strip_rows; ++r) {
    HWY_UNROLL(12)
    for (std::int64_t v = 0; v < vectors; ++v) {
      const float* at = result + r * result_stride + v * vector_width;
      if constexpr (start == Start::Zero) {
        sum[r][v] = hn::Zero(d);
      } else if constexpr (start == Start::Memory) {
        sum[r][v] = hn::Load(d, at);
      } else {
        sum[r][v] = hn::Mul(hn::Load(d, at), hn::Set(d, factor[r]));
      }
    }
  }
  for (std::int64_t k = 0; k < n; ++k) {
    VecF32 b[vectors];
    for (std::int64_t v = 0; v < vectors; ++v) b[v] = hn::Load(d, right + v * vector_width);
    HWY_UNROLL(12)
    for (std::int64_t r = 0; r < strip_rows; ++r) {
      const VecF32 a = hn::Set(d, left.at(r));
      for (std::int64_t v = 0; v < vectors; ++v) sum[r][v] = hn::MulAdd(a, b[v], sum[r][v]);
    }
    left.step();
    right += right_stride;
  }
  HWY_UNROLL(12)
  for (std::int64_t r = 0; r < strip_rows; ++r) {
    HWY_UNROLL(12)
    for (std::int64_t v = 0; v < vectors; ++v) {
      hn::Store(sum[r][v], d, result + r * result_stride + v * vector_width);
    }
  }
}

// The right operand: panel p begins at data + p * step, its row k at k * stride. So it may be the panels of
// pack_panels, or plain rows (step = panel_width).
struct Right {
  const float* data;
  std::int64_t stride;
  std::int64_t step;
};

// result[r, 0 .. vectors * vector_width) for the strip_rows rows r: chains over n of left (r, k) * right (k, column).
template <Start start, class Left>
HWY_NOINLINE void strip_product(std::int64_t n, const Left& left, const Right& right, std::int64_t vectors,
                                float* result, std::int64_t result_stride, const float* factor = nullptr) {
  const float* panel = right.data;
  for (; vectors >= 2; vectors -= 2) {
    tile_product<start, 2>(n, left, panel, right.stride, result, result_stride, factor);
    panel += right.step;
    result += panel_width;
  }
  if (vectors == 1) tile_product<start, 1>(n, left, panel, right.stride, result, result_stride, factor);
}

// A block of keys or values, rows x width at `stride`, as panels of panel_width rows: panel[p][c][r] =
// source[p * panel_width + r][c]. Rows from `rows` to the block's end are zeros.
HWY_INLINE void pack_panels(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t width,
                            float* panels) {
  const hn::FixedTag<float, 4> d;
  for (std::int64_t first = 0; first < attention_block; first += panel_width, panels += panel_width * width) {
    const std::int64_t count = std::clamp<std::int64_t>(rows - first, 0, panel_width);
    const float* from = source + first * stride;
    std::int64_t r = 0;
    for (; r + 4 <= count; r += 4, from += 4 * stride) {
      std::int64_t c = 0;
      for (; c + 4 <= width; c += 4) {
        const auto row0 = hn::LoadU(d, from + c);
        const auto row1 = hn::LoadU(d, from + stride + c);
        const auto row2 = hn::LoadU(d, from + 2 * stride + c);
        const auto row3 = hn::LoadU(d, from + 3 * stride + c);
        const auto low02 = hn::InterleaveLower(d, row0, row2);
        const auto low13 = hn::InterleaveLower(d, row1, row3);
        const auto high02 = hn::InterleaveUpper(d, row0, row2);
        const auto high13 = hn::InterleaveUpper(d, row1, row3);
        float* to = panels + c * panel_width + r;
        hn::Store(hn::InterleaveLower(d, low02, low13), d, to);
        hn::Store(hn::InterleaveUpper(d, low02, low13), d, to + panel_width);
        hn::Store(hn::InterleaveLower(d, high02, high13), d, to + 2 * panel_width);
        hn::Store(hn::InterleaveUpper(d, high02, high13), d, to + 3 * panel_width);
      }
      for (; c < width; ++c) {
        for (std::int64_t i = 0; i < 4; ++i) panels[c * panel_width + r + i] = from[i * stride + c];
      }
    }
    for (; r < count; ++r, from += stride) {
      for (std::int64_t c = 0; c < width; ++c) panels[c * panel_width + r] = from[c];
    }
    if (count == panel_width) continue;
    for (std::int64_t c = 0; c < width; ++c) std::fill_n(panels + c * panel_width + count, panel_width - count, 0.0f);
  }
}

// rows x width, at `stride`, times `factor`, as rows of `padded` elements that are zeros beyond the width; up to row
// `padded_rows` there are rows of zeros.
HWY_INLINE void pack_rows(const float* source, std::int64_t stride, std::int64_t rows, std::int64_t width, float factor,
                          std::int64_t padded_rows, std::int64_t padded, float* packed) {
  const F32 d;
  const VecF32 scale = hn::Set(d, factor);
  for (std::int64_t r = 0; r < rows; ++r, source += stride, packed += padded) {
    // A Part reads zeros beyond the row's end, and here those are to be written too.
    for_lanes(static_cast<std::size_t>(width),
              [&](auto at) HWY_ATTR { hn::Store(hn::Mul(at.load(source), scale), d, packed + at.i); });
  }
  std::fill_n(packed, (padded_rows - rows) * padded, 0.0f);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SWITCHYARD_LAYERS_ATTENTION_TILE_INL_H_
