// A block a row. A thread keeps what it has read of the row in registers for the second look at it; only what is beyond
// some vectors a thread (rows of more than 4,096 fp32 or 8,192 bf16 elements, half of that in backward) is read again.
#include "comm/device/kernel.cuh"
#include "layers/ops/norm_cuda.h"

#include <initializer_list>

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;
constexpr int warps = threads / warp_size;
constexpr int held_forward = 4;
constexpr int held_backward = 2;  // of three tensors, and of the next row's too

// This thread's share of a row of `width` elements: every threads-th vector of N.
template <class T, int N, int held>
class RowPart {
 public:
  using V = Vector<T, N>;
  __device__ __forceinline__ RowPart(const T* row, int width) : row_(row), width_(width) {
#pragma unroll
    for (int k = 0; k < held; ++k) {
      if (first(k) < width) kept_[k] = V::load(row + first(k));
    }
  }
  // The share of sum += x, which is written back.
  __device__ __forceinline__ RowPart(const T* __restrict__ x, T* sum, int width) : row_(sum), width_(width) {
    const auto add = [&](int i) {
      const auto a = V::load(x + i);
      auto v = V::load(sum + i);
#pragma unroll
      for (int e = 0; e < N; ++e) v.at[e] = from_float<T>(to_float(v.at[e]) + to_float(a.at[e]));
      v.store(sum + i);
      return v;
    };
#pragma unroll
    for (int k = 0; k < held; ++k) {
      if (first(k) < width) kept_[k] = add(first(k));
    }
    for (int k = held; first(k) < width; ++k) add(first(k));
  }
  // f(column of the first element, its N elements) for each vector.
  template <class F>
  __device__ __forceinline__ void each(const F& f) const {
#pragma unroll
    for (int k = 0; k < held; ++k) {
      if (first(k) < width_) f(first(k), kept_[k]);
    }
    for (int k = held; first(k) < width_; ++k) f(first(k), V::load(row_ + first(k)));
  }
  template <class F>
  static __device__ __forceinline__ void both(const RowPart& a, const RowPart& b, const F& f) {
#pragma unroll
    for (int k = 0; k < held; ++k) {
      if (first(k) < a.width_) f(first(k), a.kept_[k], b.kept_[k]);
    }
    for (int k = held; first(k) < a.width_; ++k) f(first(k), V::load(a.row_ + first(k)), V::load(b.row_ + first(k)));
  }
  // The same for three; where not Third, there is no third one, and f must not look at it.
  template <bool Third, class F>
  static __device__ __forceinline__ void three(const RowPart& a, const RowPart& b, const RowPart& c, const F& f) {
#pragma unroll
    for (int k = 0; k < held; ++k) {
      if (first(k) < a.width_) f(first(k), a.kept_[k], b.kept_[k], c.kept_[k]);
    }
    for (int k = held; first(k) < a.width_; ++k) {
      V third{};
      if constexpr (Third) third = V::load(c.row_ + first(k));
      f(first(k), V::load(a.row_ + first(k)), V::load(b.row_ + first(k)), third);
    }
  }

 private:
  static __device__ __forceinline__ int first(int k) {
    return (k * threads + static_cast<int>(threadIdx.x)) * N;
  }

  const T* row_;
  int width_;
  V kept_[held];
};

template <bool Add, class T, int N>
__device__ __forceinline__ RowPart<T, N, held_forward> input_row(const T* x, T* sum, std::int64_t begin, int width) {
  if constexpr (Add) return {x + begin, sum + begin, width};
  return {x + begin, width};
}
// Centered: LayerNorm, otherwise RMSNorm (and then without bias and mean). Add: x is added to `sum` first, and the norm
// is that of the sum.
template <bool Centered, bool Add, class T, int N>
__global__ void __launch_bounds__(threads)
    forward_kernel(const T* __restrict__ x, T* sum, const float* __restrict__ weight, const float* __restrict__ bias,
                   float eps, int width, T* __restrict__ y, float* __restrict__ means, float* __restrict__ inverses) {
  __shared__ float scratch[2][warps];
  const std::int64_t begin = std::int64_t{blockIdx.x} * width;
  const auto row = input_row<Add, T, N>(x, sum, begin, width);
  float mean = 0;
  if constexpr (Centered) {
    float all = 0;
    row.each([&](int, const Vector<T, N>& v) {
#pragma unroll
      for (int e = 0; e < N; ++e) all += to_float(v.at[e]);
    });
    mean = block_sum<threads>(all, scratch[0]) / static_cast<float>(width);
  }
  float squares = 0;
  row.each([&](int, const Vector<T, N>& v) {
#pragma unroll
    for (int e = 0; e < N; ++e) squares = fmaf(to_float(v.at[e]) - mean, to_float(v.at[e]) - mean, squares);
  });
  squares = block_sum<threads>(squares, scratch[1]);
  const float inverse = 1.0F / sqrtf(squares / static_cast<float>(width) + eps);
  if (threadIdx.x == 0) {
    inverses[blockIdx.x] = inverse;
    if constexpr (Centered) means[blockIdx.x] = mean;
  }
  row.each([&](int i, const Vector<T, N>& v) {
    const auto w = Vector<float, N>::load(weight + i);
    Vector<float, N> b{};
    if constexpr (Centered) b = Vector<float, N>::load(bias + i);
    Vector<T, N> out;
#pragma unroll
    for (int e = 0; e < N; ++e) {
      float value = (to_float(v.at[e]) - mean) * inverse * w.at[e];
      if constexpr (Centered) value += b.at[e];
      out.at[e] = from_float<T>(value);
    }
    out.store(y + begin + i);
  });
}

// Rows blockIdx.x, blockIdx.x + gridDim.x and so on, and their share of the weights' gradients: a column belongs to one
// thread, which adds to it in shared memory in the order of the rows.
//   RMSNorm: r (g - n mean(g n)) with n = x r, g = dy weight; LayerNorm: r (g - mean(g) - n mean(g n)), n = (x - mean)
//   r
// The next row is read while this one is worked on: few blocks, which the shares want, then suffice to keep memory
// busy.
template <bool Centered, bool Add, class T, int N>
__global__ void __launch_bounds__(threads, 2)
    backward_kernel(const T* __restrict__ dy, const T* __restrict__ x, const float* __restrict__ weight,
                    const float* __restrict__ means, const float* __restrict__ inverses, std::int64_t rows, int width,
                    T* __restrict__ dx, float* __restrict__ weight_shares, float* __restrict__ bias_shares) {
  __shared__ float scratch[2][2][warps];
  auto* const weight_share = dynamic_shared<float>();
  float* const bias_share = weight_share + width;
  for (int i = static_cast<int>(threadIdx.x); i < (Centered ? 2 : 1) * width; i += threads) weight_share[i] = 0;
  __syncthreads();
  using Part = RowPart<T, N, held_backward>;
  struct Inputs {
    Part gradient, row, out;  // out: where it is added to
  };
  const auto inputs = [&](std::int64_t t) {
    return Inputs{{dy + t * width, width}, {x + t * width, width}, {dx + t * width, Add ? width : 0}};
  };
  int turn = 0;  // the sums' scratch is written for the next row while slow warps still read this row's
  Inputs next = inputs(blockIdx.x);  // of which there are no more than rows
  for (std::int64_t t = blockIdx.x; t < rows; t += gridDim.x, turn ^= 1) {
    const std::int64_t begin = t * width;
    const auto [gradient, row, before] = next;
    if (t + gridDim.x < rows) next = inputs(t + gridDim.x);
    const float mean = Centered ? means[t] : 0.0F;
    const float inverse = inverses[t];
    float along_one = 0;
    float along_normal = 0;
    Part::both(gradient, row, [&](int i, const Vector<T, N>& g, const Vector<T, N>& v) {
      const auto w = Vector<float, N>::load(weight + i);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float weighted = to_float(g.at[e]) * w.at[e];
        if constexpr (Centered) along_one += weighted;
        along_normal = fmaf(weighted, (to_float(v.at[e]) - mean) * inverse, along_normal);
      }
    });
    if constexpr (Centered) along_one = block_sum<threads>(along_one, scratch[turn][0]) / static_cast<float>(width);
    along_normal = block_sum<threads>(along_normal, scratch[turn][1]) / static_cast<float>(width);
    const auto finish = [&](int i, const Vector<T, N>& g, const Vector<T, N>& v, Vector<T, N> out) {
      const auto w = Vector<float, N>::load(weight + i);
      auto of_weight = Vector<float, N>::load(weight_share + i);
      Vector<float, N> of_bias{};
      if constexpr (Centered) of_bias = Vector<float, N>::load(bias_share + i);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float own = to_float(g.at[e]);
        const float normal = (to_float(v.at[e]) - mean) * inverse;
        const float value = (own * w.at[e] - along_one - normal * along_normal) * inverse;
        out.at[e] = from_float<T>(Add ? to_float(out.at[e]) + value : value);
        of_weight.at[e] = fmaf(own, normal, of_weight.at[e]);
        if constexpr (Centered) of_bias.at[e] += own;
      }
      of_weight.store(weight_share + i);
      if constexpr (Centered) of_bias.store(bias_share + i);
      out.store(dx + begin + i);
    };
    Part::template three<Add>(gradient, row, before, finish);
  }
  // A thread reads back its own columns alone only where it wrote vectors of one: let all have written.
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < width; i += threads) {
    weight_shares[std::int64_t{blockIdx.x} * width + i] = weight_share[i];
    if constexpr (Centered) bias_shares[std::int64_t{blockIdx.x} * width + i] = bias_share[i];
  }
}

// total[i] = the sum over the shares of column i: eight runs of shares in their order, then a fixed tree.
constexpr int runs = 8;
__global__ void __launch_bounds__(warp_size* runs)
    sum_shares_kernel(const float* __restrict__ shares, int count, int width, float* __restrict__ total) {
  __shared__ float partial[runs][warp_size];
  const int i = static_cast<int>(blockIdx.x * warp_size + threadIdx.x);
  const int run = static_cast<int>(threadIdx.y);
  const int each = (count + runs - 1) / runs;
  const int end = (run + 1) * each < count ? (run + 1) * each : count;
  float sum = 0;
  if (i < width) {
#pragma unroll 4
    for (int s = run * each; s < end; ++s) sum += shares[std::int64_t{s} * width + i];
  }
  partial[run][threadIdx.x] = sum;
  __syncthreads();
  if (run > 0 || i >= width) return;
  const auto at = [&](int r) { return partial[r][threadIdx.x]; };
  total[i] = ((at(0) + at(1)) + (at(2) + at(3))) + ((at(4) + at(5)) + (at(6) + at(7)));
}

// How many blocks share the rows: enough to fill a GPU, few enough that their shares are a small part of what moves.
// The number is that of the rows alone, so that every GPU adds in the same order.
unsigned shares_of(std::int64_t rows) {
  return blocks_for(rows, 8, 264);
}

template <class F>
void with_vectors(const Tensor& x, std::initializer_list<const Tensor*> others, const F& f) {
  with_float_type(x.dtype(), [&]<class T>() {
    bool whole = in_vectors(static_cast<const T*>(x.raw()), x.cols());
    // Of the fp32 weights a thread reads as many as of x: up to 32 bytes.
    for (const Tensor* const other : others) whole = whole && reinterpret_cast<std::uintptr_t>(other->raw()) % 32 == 0;
    whole ? f.template operator()<T, vector_size<T>>() : f.template operator()<T, 1>();
  });
}

// sum: null, or what x is added to.
template <bool Centered>
void forward(const Tensor& x, const Tensor* sum, const Tensor& weight, const Tensor* bias, float eps, const Tensor& y,
             float* mean, float* inverse) {
  with_vectors(x, {&weight, &y, bias == nullptr ? &weight : bias, sum == nullptr ? &y : sum}, [&]<class T, int N>() {
    const auto kernel = sum == nullptr ? forward_kernel<Centered, false, T, N> : forward_kernel<Centered, true, T, N>;
    launch(stream_of(x.device()), kernel, static_cast<unsigned>(x.rows()), threads, 0, static_cast<const T*>(x.raw()),
           sum == nullptr ? nullptr : static_cast<T*>(sum->raw()), weight.f32(),
           bias == nullptr ? nullptr : bias->f32(), eps, static_cast<int>(x.cols()), static_cast<T*>(y.raw()), mean,
           inverse);
  });
}

template <bool Centered>
void backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const float* mean, const Tensor& inverse,
              const Tensor& dx, bool add_to_dx, const GradientSum& dweight, const GradientSum* dbias) {
  if (x.rows() == 0) return;
  const auto width = static_cast<int>(x.cols());
  const unsigned blocks = shares_of(x.rows());
  const std::int64_t shares = std::int64_t{blocks} * width;
  constexpr std::int64_t sums = Centered ? 2 : 1;
  auto* const workspace = static_cast<float*>(
      x.device().workspace(Bytes((sums * shares + width) * static_cast<std::int64_t>(sizeof(float)))));
  float* const bias_shares = Centered ? workspace + shares : nullptr;
  float* const total = workspace + sums * shares;
  with_vectors(x, {&dy, &weight, &dx}, [&]<class T, int N>() {
    const auto kernel = add_to_dx ? backward_kernel<Centered, true, T, N> : backward_kernel<Centered, false, T, N>;
    launch(stream_of(x.device()), kernel, blocks, threads, usize(sums * width) * sizeof(float),
           static_cast<const T*>(dy.raw()), static_cast<const T*>(x.raw()), weight.f32(), mean, inverse.f32(), x.rows(),
           width, static_cast<T*>(dx.raw()), workspace, bias_shares);
  });
  const auto add = [&](const float* from, const GradientSum& sum) {
    launch(stream_of(x.device()), sum_shares_kernel, blocks_for(width, warp_size), dim3(warp_size, runs), 0, from,
           static_cast<int>(blocks), width, total);
    add_partial(sum, total, width);
  };
  add(workspace, dweight);
  if (dbias != nullptr) add(bias_shares, *dbias);
}

}  // namespace

void rms_norm(const Tensor& x, const Tensor& weight, float eps, Tensor y, Tensor inverse_rms) {
  forward<false>(x, nullptr, weight, nullptr, eps, y, nullptr, inverse_rms.f32());
}

void add_rms_norm(const Tensor& x, Tensor sum, const Tensor& weight, float eps, Tensor y, Tensor inverse_rms) {
  forward<false>(x, &sum, weight, nullptr, eps, y, nullptr, inverse_rms.f32());
}

void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& inverse_rms, Tensor dx,
                       bool add_to_dx, const GradientSum& dweight) {
  backward<false>(dy, x, weight, nullptr, inverse_rms, dx, add_to_dx, dweight, nullptr);
}

void layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, Tensor y, Tensor mean,
                Tensor inverse_deviation) {
  forward<true>(x, nullptr, weight, &bias, eps, y, mean.f32(), inverse_deviation.f32());
}

void add_layer_norm(const Tensor& x, Tensor sum, const Tensor& weight, const Tensor& bias, float eps, Tensor y,
                    Tensor mean, Tensor inverse_deviation) {
  forward<true>(x, &sum, weight, &bias, eps, y, mean.f32(), inverse_deviation.f32());
}

void layer_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& mean,
                         const Tensor& inverse_deviation, Tensor dx, bool add_to_dx, const GradientSum& dweight,
                         const GradientSum& dbias) {
  backward<true>(dy, x, weight, mean.f32(), inverse_deviation, dx, add_to_dx, dweight, &dbias);
}

}  // namespace switchyard::cuda
