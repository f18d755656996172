// What rows.cpp runs on a CUDA device. Shapes, types and devices are checked already; indices are not: what a number
// beyond the rows names is not read (a row of NaN comes instead) and not written.
#pragma once

#include "layers/tensor/tensor.h"

namespace switchyard::cuda {

void gather_rows(const Tensor& x, const Tensor& index, const Tensor& scale, Tensor y);  // scale: undefined for 1
void scatter_rows(const Tensor& x, const Tensor& index, const Tensor& scale, Tensor y);
void sum_rows(const Tensor& x, const Tensor& order, const Tensor& begin, Tensor y);
void dot_rows(const Tensor& a, const Tensor& row, const Tensor& b, Tensor out);

// Lists for sum_rows(): the i with row[i] == r are order[begin[r]] .. order[begin[r + 1] - 1], ascending; one beyond
// the rows, or negative, is in none. cursors: scratch, an int32 for each row.
void make_row_lists(Device& device, const std::int32_t* row, std::int64_t slots, std::int64_t rows, std::int32_t* order,
                    std::int32_t* begin, std::int32_t* cursors);

}  // namespace switchyard::cuda
