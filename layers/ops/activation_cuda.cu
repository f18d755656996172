// Elementwise: each function is a struct that says how many inputs and outputs it has and maps one element.
#include "comm/device/kernel.cuh"
#include "layers/ops/activation_cuda.h"

#include <array>

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;

struct Sigmoid {
  float value;
  float rest;  // 1 - value, without cancellation
};
// From e^-|z|, which neither overflows nor loses digits.
__device__ __forceinline__ Sigmoid sigmoid(float z) {
  const float e = expf(-fabsf(z));
  const float large = 1.0F / (1.0F + e);
  const float small = e * large;
  return z < 0 ? Sigmoid{small, large} : Sigmoid{large, small};
}

// The normal distribution below x; erfc keeps its digits in the lower tail.
__device__ __forceinline__ float normal_below(float x) {
  return 0.5F * erfcf(-0.70710678F * x);
}

struct Swiglu {
  static constexpr int inputs = 2, outputs = 1;
  static __device__ __forceinline__ void map(const float* in, float* out) {
    out[0] = in[0] * sigmoid(in[0]).value * in[1];
  }
};
// silu'(z) = s (1 + z (1 - s))
struct SwigluBackward {
  static constexpr int inputs = 3, outputs = 2;
  static __device__ __forceinline__ void map(const float* in, float* out) {
    const float dh = in[0];
    const float gate = in[1];
    const Sigmoid s = sigmoid(gate);
    out[0] = dh * in[2] * s.value * fmaf(gate, s.rest, 1.0F);
    out[1] = dh * (gate * s.value);
  }
};
struct Gelu {
  static constexpr int inputs = 1, outputs = 1;
  static __device__ __forceinline__ void map(const float* in, float* out) { out[0] = in[0] * normal_below(in[0]); }
};
// gelu'(x) = Phi(x) + x phi(x)
struct GeluBackward {
  static constexpr int inputs = 2, outputs = 1;
  static __device__ __forceinline__ void map(const float* in, float* out) {
    const float x = in[1];
    out[0] = in[0] * fmaf(x, 0.39894228F * expf(-0.5F * x * x), normal_below(x));
  }
};
struct Relu {  // NaN is not below 0 and stays
  static constexpr int inputs = 1, outputs = 1;
  static __device__ __forceinline__ void map(const float* in, float* out) { out[0] = in[0] < 0 ? 0.0F : in[0]; }
};
struct ReluBackward {
  static constexpr int inputs = 2, outputs = 1;
  static __device__ __forceinline__ void map(const float* in, float* out) { out[0] = in[1] > 0 ? in[0] : 0.0F; }
};
struct Add {
  static constexpr int inputs = 2, outputs = 1;
  static __device__ __forceinline__ void map(const float* in, float* out) { out[0] = in[0] + in[1]; }
};

template <class F, class T>
struct Arrays {
  const T* in[F::inputs];
  T* out[F::outputs];
};

// No __restrict__: outputs may be the memory of inputs. A thread has read its elements before it writes them.
template <class F, class T, int N>
__global__ void __launch_bounds__(threads) map_kernel(Arrays<F, T> arrays, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * threads * N;
  for (std::int64_t i = (std::int64_t{blockIdx.x} * threads + threadIdx.x) * N; i < n; i += step) {
    const bool whole = i + N <= n;
    Vector<T, N> in[F::inputs];
    Vector<T, N> out[F::outputs];
    if (whole) {
#pragma unroll
      for (int a = 0; a < F::inputs; ++a) in[a] = Vector<T, N>::load(arrays.in[a] + i);
    } else {
#pragma unroll
      for (int a = 0; a < F::inputs; ++a) {
#pragma unroll
        for (int e = 0; e < N; ++e) in[a].at[e] = i + e < n ? arrays.in[a][i + e] : from_float<T>(0.0F);
      }
    }
#pragma unroll
    for (int e = 0; e < N; ++e) {
      float from[F::inputs];
      float to[F::outputs];
#pragma unroll
      for (int a = 0; a < F::inputs; ++a) from[a] = to_float(in[a].at[e]);
      F::map(from, to);
#pragma unroll
      for (int a = 0; a < F::outputs; ++a) out[a].at[e] = from_float<T>(to[a]);
    }
    if (whole) {
#pragma unroll
      for (int a = 0; a < F::outputs; ++a) out[a].store(arrays.out[a] + i);
    } else {
#pragma unroll
      for (int a = 0; a < F::outputs; ++a) {
#pragma unroll
        for (int e = 0; e < N; ++e) {
          if (i + e < n) arrays.out[a][i + e] = out[a].at[e];
        }
      }
    }
  }
}

template <class F>
void map(const std::array<const Tensor*, F::inputs>& in, const std::array<const Tensor*, F::outputs>& out) {
  const Tensor& first = *in[0];
  const std::int64_t n = first.size();
  with_float_type(first.dtype(), [&]<class T>() {
    Arrays<F, T> arrays;
    bool aligned = true;
    const auto place = [&](const Tensor& tensor) {
      aligned = aligned && reinterpret_cast<std::uintptr_t>(tensor.raw()) % 16 == 0;
      return static_cast<T*>(tensor.raw());
    };
    for (std::size_t a = 0; a < in.size(); ++a) arrays.in[a] = place(*in[a]);
    for (std::size_t a = 0; a < out.size(); ++a) arrays.out[a] = place(*out[a]);
    const auto run = [&](auto kernel, int each) {
      const std::int64_t most = std::int64_t{multiprocessors(first.device())} * 32;
      launch(stream_of(first.device()), kernel, blocks_for(n, std::int64_t{threads} * each, most), threads, 0, arrays,
             n);
    };
    aligned ? run(map_kernel<F, T, vector_size<T>>, vector_size<T>) : run(map_kernel<F, T, 1>, 1);
  });
}

}  // namespace

void swiglu(const Tensor& gate, const Tensor& up, Tensor h) {
  map<Swiglu>({&gate, &up}, {&h});
}
void swiglu_backward(const Tensor& dh, const Tensor& gate, const Tensor& up, Tensor dgate, Tensor dup) {
  map<SwigluBackward>({&dh, &gate, &up}, {&dgate, &dup});
}
void gelu(const Tensor& x, Tensor y) {
  map<Gelu>({&x}, {&y});
}
void gelu_backward(const Tensor& dy, const Tensor& x, Tensor dx) {
  map<GeluBackward>({&dy, &x}, {&dx});
}
void relu(const Tensor& x, Tensor y) {
  map<Relu>({&x}, {&y});
}
void relu_backward(const Tensor& dy, const Tensor& x, Tensor dx) {
  map<ReluBackward>({&dy, &x}, {&dx});
}
void add_in_place(const Tensor& x, Tensor y) {
  map<Add>({&y, &x}, {&y});
}

}  // namespace switchyard::cuda
