// How a row of fp32 numbers lies on the wire: as it is, as bf16, or as int8 with one fp32 scale a block of 128 columns.
//
// What a coded row decodes to depends on the row alone, never on vector width, threads or the rows beside it. Rows that
// stay on their rank go through round_rows, so that they have the same bits as those that travelled, and no result
// depends on the layout (law 1).
//
//   fp32  the same bits.
//   bf16  rounded to nearest, ties to even: 2^-8 relative at most. Inf and NaN stay what they are; numbers beyond the
//         largest bf16 by half a step or more (3.396e38) become Inf.
//   int8  symmetric: a code is x / scale, rounded to nearest; scale is the block's largest |x| / 127, cut to 17 bits,
//         so that code * scale is exact and what was decoded gives the same bytes again. Off by half a step at most:
//         1/254 of the block's largest |x| (1/127 below 1e-30, where scales are powers of two). Zeros lose their sign.
//         A block with an Inf or a NaN decodes to NaN throughout: a broken number is never hidden.
//
// Why int8 and not e4m3 as the 8-bit format: with the same scales, the rms error in parts of the rows' rms (400 rows of
// 1024; e4m3's scale is largest / 448) was
//                                      int8     e4m3     bf16
//   normal                             0.65 %   2.57 %   0.17 %
//   Student's t, 5 degrees of freedom  0.95 %   2.46 %   0.17 %
//   Student's t, 3                     1.35 %   2.24 %   0.17 %
//   normal, 1 in 100 times 20          2.06 %   1.55 %   0.16 %
//   normal, 1 in 100 times 100         2.28 %   1.20 %   0.16 %
// so e4m3 wins only where single columns stand out far in most blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

enum class Wire { F32, BF16, I8 };

inline constexpr std::int64_t wire_block = 128;  // columns that share a scale

const char* name_of(Wire wire);  // "fp32", "bf16", "int8"
const std::vector<std::string>& wire_names();
Wire parse_wire(std::string_view name);  // throws Error(Usage)

// fp32: 4 width; bf16: 2 width; int8: 4 bytes of scale a block, then a byte a column. Made up with zeros to a multiple
// of 4, so that every row of several, and fp32 numbers behind them, are aligned.
std::int64_t wire_row_bytes(Wire wire, std::int64_t width);

// Coded rows are 4-byte aligned and stand one after the other, wire_row_bytes apart. Nothing overlaps.
// Row i of `out` is row index[i] of `rows`, or row i.
void encode_rows(Wire wire, const float* rows, std::span<const std::int32_t> index, std::int64_t width, std::byte* out);
void encode_rows(Wire wire, const float* rows, std::int64_t count, std::int64_t width, std::byte* out);
void decode_rows(Wire wire, const std::byte* in, std::int64_t count, std::int64_t width, float* rows);
// In place what encoding and decoding would give.
void round_rows(Wire wire, float* rows, std::int64_t count, std::int64_t width);

// One row, by the calling thread alone.
void encode_row(Wire wire, const float* row, std::int64_t width, std::byte* out);
void decode_row(Wire wire, const std::byte* in, std::int64_t width, float* row);
void round_row(Wire wire, float* row, std::int64_t width);
// sum[c] += what column c decodes to.
void add_decoded(Wire wire, const std::byte* in, std::int64_t width, float* sum);

}  // namespace switchyard
