// What activation.cpp runs on the CPU, on n elements. Outputs may be the memory of inputs.
#pragma once

#include <cstdint>

namespace switchyard::cpu {

void swiglu(const float* gate, const float* up, std::int64_t n, float* h);
void swiglu_backward(const float* dh, const float* gate, const float* up, std::int64_t n, float* dgate, float* dup);
void gelu(const float* x, std::int64_t n, float* y);
void gelu_backward(const float* dy, const float* x, std::int64_t n, float* dx);
void relu(const float* x, std::int64_t n, float* y);
void relu_backward(const float* dy, const float* x, std::int64_t n, float* dx);
void add_in_place(const float* x, std::int64_t n, float* y);

}  // namespace switchyard::cpu
