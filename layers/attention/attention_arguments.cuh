// What attention_cuda.cu hands to the kernels.
#pragma once

#include "comm/device/kernel.cuh"

#include <cstdint>

namespace switchyard::cuda {

// One call's tensors, shapes as in attention.h; the heads of q and k are width_qk wide, those of v and out width_v.
template <class T>
struct AttentionArguments {
  const T* q;
  const T* k;
  const T* v;
  T* out;
  float* log_sum_exp;
  const T* dout;
  const float* mean;  // [B * H, S], the sum of dout * out over a head's row
  T* dq;
  T* dk;
  T* dv;
  int sequences, positions, heads, kv_heads, width_qk, width_v;
  float scale;
};

__device__ __forceinline__ int lesser(int a, int b) {
  return a < b ? a : b;
}

// On tensor cores: heads whose widths are multiples of 8 and at most max_flash_width, width_v at most width_qk, all
// rows 16-byte aligned.
using FlashArguments = AttentionArguments<bf16>;
inline constexpr int max_flash_width = 256;
void flash_forward(const FlashArguments& arguments, cudaStream_t stream);
void flash_backward(const FlashArguments& arguments, cudaStream_t stream);

// In fp32, for heads of any width.
template <class T>
void tiled_forward(const AttentionArguments<T>& arguments, cudaStream_t stream);
template <class T>
void tiled_backward(const AttentionArguments<T>& arguments, cudaStream_t stream);

}  // namespace switchyard::cuda
