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

// Which indices name each row: those i with row[i] == r are order[begin[r]] .. order[begin[r + 1] - 1], ascending.
// row: int32 [S], a negative one is in no list; order: int32 [S], of which the first begin[R] are set;
// begin: int32 [R + 1].
void make_row_lists(const Tensor& row, Tensor order, Tensor begin);
// y[r] = sum of x[i] over the i with row[i] == r, added in ascending i from zero; y is assigned.  x: [S, D], y: [R, D].
// order, begin: the i by row, as make_row_lists gives them.
void sum_rows(const Tensor& x, const Tensor& order, const Tensor& begin, Tensor y);
// out[i] = dot(a[row[i]], b[i]), a fixed order over D whatever the vector width.  a: [R, D], row: int32 [S], b: [S, D]
void dot_rows(const Tensor& a, const Tensor& row, const Tensor& b, Tensor out);

}  // namespace switchyard
