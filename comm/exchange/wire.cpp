// Names, sizes, and many rows shared out to threads; the kernels of one row are in wire_row.cpp.
#include "comm/exchange/wire.h"

#include "comm/base/error.h"
#include "comm/base/ids.h"
#include "comm/base/nearest.h"
#include "comm/exchange/scratch.h"

#include <algorithm>

#include <fmt/ranges.h>

namespace switchyard {
namespace {

constexpr std::int64_t aligned(std::int64_t bytes) {
  return (bytes + 3) / 4 * 4;
}

}  // namespace

const char* name_of(Wire wire) {
  return wire_names()[static_cast<std::size_t>(wire)].c_str();
}

const std::vector<std::string>& wire_names() {
  static const std::vector<std::string> names = {"fp32", "bf16", "int8"};
  return names;
}

Wire parse_wire(std::string_view name) {
  const std::vector<std::string>& names = wire_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    fail(ErrorKind::Usage, "'{}' is no wire format: there are {}{}", name, fmt::join(names, ", "),
         did_you_mean(name, names));
  }
  return static_cast<Wire>(found - names.begin());
}

std::int64_t wire_row_bytes(Wire wire, std::int64_t width) {
  switch (wire) {
    case Wire::F32:
      return 4 * width;
    case Wire::BF16:
      return aligned(2 * width);
    case Wire::I8:
      return 4 * ((width + wire_block - 1) / wire_block) + aligned(width);
  }
  fail(ErrorKind::Runtime, "unknown wire format {}", static_cast<int>(wire));
}

void encode_rows(Wire wire, const float* rows, std::span<const std::int32_t> index, std::int64_t width,
                 std::byte* out) {
  const std::int64_t count = isize(index.size());
  const std::int64_t bytes = wire_row_bytes(wire, width);
#pragma omp parallel for schedule(static) if (count * width > parallel_floats)
  for (std::int64_t i = 0; i < count; ++i) encode_row(wire, rows + index[usize(i)] * width, width, out + i * bytes);
}

void encode_rows(Wire wire, const float* rows, std::int64_t count, std::int64_t width, std::byte* out) {
  const std::int64_t bytes = wire_row_bytes(wire, width);
#pragma omp parallel for schedule(static) if (count * width > parallel_floats)
  for (std::int64_t i = 0; i < count; ++i) encode_row(wire, rows + i * width, width, out + i * bytes);
}

void decode_rows(Wire wire, const std::byte* in, std::int64_t count, std::int64_t width, float* rows) {
  const std::int64_t bytes = wire_row_bytes(wire, width);
#pragma omp parallel for schedule(static) if (count * width > parallel_floats)
  for (std::int64_t i = 0; i < count; ++i) decode_row(wire, in + i * bytes, width, rows + i * width);
}

void round_rows(Wire wire, float* rows, std::int64_t count, std::int64_t width) {
  if (wire == Wire::F32) return;
#pragma omp parallel for schedule(static) if (count * width > parallel_floats)
  for (std::int64_t i = 0; i < count; ++i) round_row(wire, rows + i * width, width);
}

}  // namespace switchyard
