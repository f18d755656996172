// What rows.cpp runs on the CPU. Shapes, types and devices are checked already; indices are checked here.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard::cpu {

// scale: [S], or undefined where rows are moved as they are.
void gather_rows(const char* op, const Tensor& x, const Tensor& index, const Tensor& scale, Tensor y);
void scatter_rows(const char* op, const Tensor& x, const Tensor& index, const Tensor& scale, Tensor y);
void sum_rows(const Tensor& x, const Tensor& order, const Tensor& begin, Tensor y);
void dot_rows(const Tensor& a, const Tensor& row, const Tensor& b, Tensor out);

// Throws Error(Runtime) where an index is not in [0, rows).
void check_indices(const char* op, const char* name, const Tensor& index, std::int64_t rows);

}  // namespace switchyard::cpu
