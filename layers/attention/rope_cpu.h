// What rope.cpp runs on the CPU.
#pragma once

#include <cstdint>

namespace switchyard::cpu {

// Turns each head of one row of x by the angles of a table row (cos, then sin), or back.
void rope_row(const float* table_row, std::int64_t head_dim, std::int64_t heads, bool back, float* x);

}  // namespace switchyard::cpu
