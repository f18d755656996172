// Moving rows by index.   S slots (or any number of indices), R rows, D width
//
// An index beyond its rows is an Error(Runtime) that names it. On a CUDA device, which nobody waits for, it is not read
// and not written; a row or product that it should have given is NaN.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard {

// y[i] = x[index[i]].  x: [R, D], index: int32 [S], y: [S, D]
void gather_rows(const Tensor& x, const Tensor& index, Tensor y);
// y[i] = scale[i] * x[index[i]].  scale: [S]
void gather_rows_scaled(const Tensor& x, const Tensor& index, const Tensor& scale, Tensor y);
// y[index[i]] = x[i]; index holds no number twice; rows that are not named keep what they had.  x: [S, D], y: [R, D]
void scatter_rows(const Tensor& x, const Tensor& index, Tensor y);
// y[index[i]] = scale[i] * x[i].
void scatter_rows_scaled(const Tensor& x, const Tensor& index, const Tensor& scale, Tensor y);

// y[r] = sum of x[order[i]] over the i from begin[r] to begin[r + 1] - 1, in this order, from zero; y is assigned.
// x: [S, D], y: [R, D], begin: int32 [R + 1], order: int32 [begin[R] or more]
void sum_rows(const Tensor& x, const Tensor& order, const Tensor& begin, Tensor y);
// out[i] = dot(a[row[i]], b[i]), a fixed order over D whatever the vector width.  a: [R, D], row: int32 [S], b: [S, D]
void dot_rows(const Tensor& a, const Tensor& row, const Tensor& b, Tensor out);

}  // namespace switchyard
