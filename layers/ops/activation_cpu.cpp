#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/activation_cpu.cpp"
#include "layers/ops/activation_cpu.h"

#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "layers/ops/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

struct Sigmoid {
  VecF32 value;
  VecF32 rest;  // 1 - value, without cancellation
};

// From e^-|z|, which neither overflows nor loses digits.
HWY_INLINE Sigmoid sigmoid(VecF32 z) {
  const F32 d;
  const VecF32 e = exp_lanes(hn::Neg(hn::Abs(z)));
  const VecF32 large = hn::Div(hn::Set(d, 1.0f), hn::Add(hn::Set(d, 1.0f), e));
  const VecF32 small = hn::Mul(e, large);
  const auto negative = hn::Lt(z, hn::Zero(d));
  return {hn::IfThenElse(negative, small, large), hn::IfThenElse(negative, large, small)};
}

void Swiglu(const float* gate, const float* up, std::int64_t n, float* h) {
  for_lanes(static_cast<std::size_t>(n), [&](auto at) HWY_ATTR {
    const VecF32 z = at.load(gate);
    at.store(hn::Mul(hn::Mul(z, sigmoid(z).value), at.load(up)), h);
  });
}

// silu'(z) = s + z s (1 - s) = s (1 + z (1 - s))
void SwigluBackward(const float* dh, const float* gate, const float* up, std::int64_t n, float* dgate, float* dup) {
  for_lanes(static_cast<std::size_t>(n), [&](auto at) HWY_ATTR {
    const VecF32 z = at.load(gate), dy = at.load(dh);
    const Sigmoid s = sigmoid(z);
    const VecF32 slope = hn::Mul(s.value, hn::MulAdd(z, s.rest, hn::Set(F32(), 1.0f)));
    const VecF32 dgate_lanes = hn::Mul(hn::Mul(dy, at.load(up)), slope);
    at.store(hn::Mul(dy, hn::Mul(z, s.value)), dup);
    at.store(dgate_lanes, dgate);
  });
}

struct Normal {
  VecF32 below;    // Phi(x), the normal distribution
  VecF32 density;  // phi(x)
};

// Phi(-t) = exp(-t^2/2) R(t) for t >= 0, where R(t) is w times a polynomial of w = 1 / (1 + t/4), interpolated at
// Chebyshev's nodes over t in [0, 14] and good to 1.3e-8 relative there; beyond, the exponential is 0. Unlike
// (1 + erf) / 2 this keeps its digits in the lower tail, and the density comes with it.
HWY_INLINE Normal normal(VecF32 x) {
  const F32 d;
  const VecF32 t = hn::Abs(x);
  const VecF32 e = exp_lanes(hn::Mul(hn::Mul(t, hn::Set(d, -0.5f)), t));
  const VecF32 w = hn::Div(hn::Set(d, 1.0f), hn::MulAdd(t, hn::Set(d, 0.25f), hn::Set(d, 1.0f)));
  constexpr float c[] = {0.0997517922f,  0.0994166231f, 0.0961508647f, 0.0690116361f,  0.0953755683f,
                         -0.0036779594f, 0.0483180834f, 0.0366152550f, -0.0563454643f, 0.0153836033f};
  VecF32 r = hn::Set(d, c[9]);
  for (int i = 8; i >= 0; --i) r = hn::MulAdd(r, w, hn::Set(d, c[i]));
  const VecF32 tail = hn::Mul(e, hn::Mul(w, r));
  const VecF32 below = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(hn::Set(d, 1.0f), tail));
  return {below, hn::Mul(e, hn::Set(d, 0.398942280f))};
}

void Gelu(const float* x, std::int64_t n, float* y) {
  for_lanes(static_cast<std::size_t>(n), [&](auto at) HWY_ATTR {
    const VecF32 value = at.load(x);
    at.store(hn::Mul(value, normal(value).below), y);
  });
}

// gelu'(x) = Phi(x) + x phi(x)
void GeluBackward(const float* dy, const float* x, std::int64_t n, float* dx) {
  for_lanes(static_cast<std::size_t>(n), [&](auto at) HWY_ATTR {
    const VecF32 value = at.load(x);
    const Normal p = normal(value);
    at.store(hn::Mul(at.load(dy), hn::MulAdd(value, p.density, p.below)), dx);
  });
}

}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "layers/ops/blocks.h"

namespace switchyard {
HWY_EXPORT(Swiglu);
HWY_EXPORT(SwigluBackward);
HWY_EXPORT(Gelu);
HWY_EXPORT(GeluBackward);

namespace cpu {
namespace {

constexpr std::int64_t block_size = 8192;

}  // namespace

void swiglu(const float* gate, const float* up, std::int64_t n, float* h) {
  for_blocks(n, block_size, [&](std::int64_t, std::int64_t i, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(Swiglu)(gate + i, up + i, count, h + i);
  });
}

void swiglu_backward(const float* dh, const float* gate, const float* up, std::int64_t n, float* dgate, float* dup) {
  for_blocks(n, block_size, [&](std::int64_t, std::int64_t i, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(SwigluBackward)(dh + i, gate + i, up + i, count, dgate + i, dup + i);
  });
}

void gelu(const float* x, std::int64_t n, float* y) {
  for_blocks(n, block_size, [&](std::int64_t, std::int64_t i, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(Gelu)(x + i, count, y + i);
  });
}

void gelu_backward(const float* dy, const float* x, std::int64_t n, float* dx) {
  for_blocks(n, block_size, [&](std::int64_t, std::int64_t i, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(GeluBackward)(dy + i, x + i, count, dx + i);
  });
}

// Plain loops from here: the compiler vectorises them, and no width can change their bits. NaN is not below 0 and
// stays.
void relu(const float* x, std::int64_t n, float* y) {
  for_blocks(n, block_size, [&](std::int64_t, std::int64_t begin, std::int64_t count) {
    for (std::int64_t i = begin; i < begin + count; ++i) y[i] = x[i] < 0 ? 0.0f : x[i];
  });
}

void relu_backward(const float* dy, const float* x, std::int64_t n, float* dx) {
  for_blocks(n, block_size, [&](std::int64_t, std::int64_t begin, std::int64_t count) {
    for (std::int64_t i = begin; i < begin + count; ++i) dx[i] = x[i] > 0 ? dy[i] : 0.0f;
  });
}

void add_in_place(const float* x, std::int64_t n, float* y) {
  for_blocks(n, block_size, [&](std::int64_t, std::int64_t begin, std::int64_t count) {
    for (std::int64_t i = begin; i < begin + count; ++i) y[i] += x[i];
  });
}

}  // namespace cpu
}  // namespace switchyard
#endif
