// Wire formats against their definitions, written out once more without vectors.
#include "comm/exchange/wire.h"

#include "comm/base/error.h"
#include "comm/base/ids.h"
#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace switchyard;
using test::BaselineVectors;

namespace {

constexpr Wire formats[] = {Wire::F32, Wire::BF16, Wire::I8};
constexpr std::int64_t widths[] = {1, 2, 3, 7, 15, 16, 17, 127, 128, 129, 130, 1000, 1024, 1500};
constexpr float smallest_usual = 0x1.fcp-101f;
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

using Floats = std::vector<float>;
using Coded = std::vector<std::byte>;

// Bits, but that one NaN is as good as another.
bool same(const Floats& a, const Floats& b) {
  const auto equal = [](float x, float y) {
    return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y) || (std::isnan(x) && std::isnan(y));
  };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), equal);
}

// Rows like activations, with outliers; each row of another magnitude.
Floats some_rows(std::int64_t count, std::int64_t width, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Floats rows;
  for (std::int64_t i = 0; i < count; ++i) {
    const float size = std::ldexp(1.0f, static_cast<int>(random() % 60) - 30);
    for (std::int64_t c = 0; c < width; ++c)
      rows.push_back(size * normal(random) * (random() % 50 == 0 ? 20.0f : 1.0f));
  }
  return rows;
}

Coded encoded(Wire wire, const Floats& rows, std::int64_t width) {
  const std::int64_t count = isize(rows.size()) / width;
  Coded coded(usize(count * wire_row_bytes(wire, width)), std::byte{0xaa});
  encode_rows(wire, rows.data(), count, width, coded.data());
  return coded;
}
Floats decoded(Wire wire, const Coded& coded, std::int64_t width) {
  const std::int64_t count = isize(coded.size()) / wire_row_bytes(wire, width);
  Floats rows(usize(count * width), -77.0f);
  decode_rows(wire, coded.data(), count, width, rows.data());
  return rows;
}
Floats travelled(Wire wire, const Floats& rows, std::int64_t width) {
  return decoded(wire, encoded(wire, rows, width), width);
}

// The nearest of the two bf16 numbers around x, the even one of two equally near.
float bf16_oracle(float x) {
  if (!std::isfinite(x)) return x;
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const auto low = bits & 0xffff0000U;
  const auto high = low + 0x10000;  // one further from zero; at the end of the range 2^128, which is Inf
  const auto value = [](std::uint32_t b) {
    const auto magnitude = static_cast<double>(std::bit_cast<float>(b & 0x7fffffff));
    return std::isinf(magnitude) ? 0x1p128 : magnitude;
  };
  const double below = std::abs(static_cast<double>(x)) - value(low);
  const double above = value(high) - std::abs(static_cast<double>(x));
  const bool up = above < below || (above == below && (low >> 16) % 2 == 1);
  return std::bit_cast<float>(up ? high : low);
}

float scale_oracle(float largest) {
  if (largest < smallest_usual) {
    float scale = 0;
    for (int e = -149; largest > 0 && (scale == 0 || 127.0 * static_cast<double>(scale) < largest); ++e) {
      scale = std::ldexp(1.0f, e);
    }
    return scale;
  }
  int exponent = 0;
  const float mantissa = std::frexp(largest / 127.0f, &exponent);
  return std::ldexp(std::floor(mantissa * 0x1p17f), exponent - 17);
}

// One row.
Coded int8_oracle(const Floats& row) {
  const std::size_t blocks = (row.size() + 127) / 128;
  Coded coded(4 * blocks + (row.size() + 3) / 4 * 4, std::byte{0});
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::size_t end = std::min(row.size(), 128 * b + 128);
    float largest = 0;
    bool broken = false;
    for (std::size_t c = 128 * b; c < end; ++c) {
      broken = broken || !std::isfinite(row[c]);
      largest = std::max(largest, std::abs(row[c]));
    }
    const float scale = broken ? nan_value : scale_oracle(largest);
    std::memcpy(coded.data() + 4 * b, &scale, 4);
    for (std::size_t c = 128 * b; c < end && !broken && scale > 0; ++c) {
      // The inverse of the smallest scales is beyond fp32; those are powers of two, so that a double is exact.
      const double ratio = largest < smallest_usual ? static_cast<double>(row[c]) / static_cast<double>(scale)
                                                    : static_cast<double>(row[c] * (1.0f / scale));
      coded[4 * blocks + c] = static_cast<std::byte>(static_cast<std::int8_t>(std::lrint(ratio)));
    }
  }
  return coded;
}

// The largest |a - b| of a row in parts of its block's largest magnitude.
double worst_of_block(const Floats& a, const Floats& b) {
  double worst = 0;
  for (std::size_t begin = 0; begin < a.size(); begin += 128) {
    const std::size_t end = std::min(a.size(), begin + 128);
    double largest = 0;
    double error = 0;
    for (std::size_t c = begin; c < end; ++c) {
      largest = std::max(largest, std::abs(static_cast<double>(a[c])));
      error = std::max(error, std::abs(static_cast<double>(a[c]) - static_cast<double>(b[c])));
    }
    if (error > 0) worst = std::max(worst, error / largest);
  }
  return worst;
}
double worst_relative(const Floats& a, const Floats& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    worst = std::max(
        worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])) / std::abs(static_cast<double>(a[i])));
  }
  return worst;
}

}  // namespace

TEST_CASE("names and sizes") {
  for (const Wire wire : formats) CHECK(parse_wire(name_of(wire)) == wire);
  CHECK(wire_names() == std::vector<std::string>{"fp32", "bf16", "int8"});
  CHECK_THROWS_WITH(parse_wire("pf16"), "'pf16' is no wire format: there are fp32, bf16, int8 (did you mean 'bf16'?)");
  CHECK(wire_row_bytes(Wire::F32, 1000) == 4000);
  CHECK(wire_row_bytes(Wire::BF16, 1000) == 2000);
  CHECK(wire_row_bytes(Wire::BF16, 129) == 260);
  CHECK(wire_row_bytes(Wire::I8, 1024) == 1024 + 32);
  CHECK(wire_row_bytes(Wire::I8, 1000) == 1000 + 32);
  CHECK(wire_row_bytes(Wire::I8, 129) == 132 + 8);
  CHECK(wire_row_bytes(Wire::I8, 1) == 4 + 4);
  for (const Wire wire : formats) CHECK(wire_row_bytes(wire, 0) == 0);
}

TEST_CASE("fp32 travels as it is") {
  Floats rows = some_rows(3, 129, 1);
  rows[5] = std::bit_cast<float>(0x7f812345);  // a signalling NaN
  rows[6] = -0.0f;
  const Floats back = travelled(Wire::F32, rows, 129);
  CHECK(std::memcmp(rows.data(), back.data(), rows.size() * sizeof(float)) == 0);
}

TEST_CASE("bf16 is the nearest there is, ties to even") {
  Floats x;
  for (std::uint32_t high = 0; high < 0x10000; ++high) {
    for (const std::uint32_t low : {0x0000U, 0x0001U, 0x7fffU, 0x8000U, 0x8001U, 0xffffU}) {
      x.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  Floats wanted(x.size());
  std::transform(x.begin(), x.end(), wanted.begin(), bf16_oracle);
  const Floats got = travelled(Wire::BF16, x, isize(x.size()));
  CHECK(same(got, wanted));
  // A NaN whose bits all lie in the half that is cut off.
  CHECK(std::isnan(travelled(Wire::BF16, {std::bit_cast<float>(0x7f800001)}, 1)[0]));
  // Planted fault: rounding towards zero would be seen.
  Floats cut = x;
  for (float& v : cut) v = std::bit_cast<float>(std::bit_cast<std::uint32_t>(v) & 0xffff0000U);
  CHECK_FALSE(same(got, cut));
}

TEST_CASE("int8 is what its definition says, for every width") {
  for (const std::int64_t width : widths) {
    INFO("width " << width);
    const Floats rows = some_rows(5, width, static_cast<unsigned>(width));
    const Coded coded = encoded(Wire::I8, rows, width);
    const std::int64_t bytes = wire_row_bytes(Wire::I8, width);
    for (std::int64_t i = 0; i < 5; ++i) {
      const Coded wanted = int8_oracle({rows.begin() + i * width, rows.begin() + (i + 1) * width});
      REQUIRE(isize(wanted.size()) == bytes);
      CHECK(std::equal(wanted.begin(), wanted.end(), coded.begin() + i * bytes));
    }
  }
}

TEST_CASE("errors stay within the bounds that are promised") {
  for (const std::int64_t width : widths) {
    INFO("width " << width);
    const Floats row = some_rows(1, width, 100 + static_cast<unsigned>(width));
    CHECK(worst_relative(row, travelled(Wire::BF16, row, width)) <= 0x1p-8);
    Floats coarse = travelled(Wire::I8, row, width);
    CHECK(worst_of_block(row, coarse) <= 1.0 / 254 * (1 + 1e-4));
    // Planted fault: a number that is one step off.
    float largest = 0;
    for (std::int64_t c = 0; c < std::min<std::int64_t>(width, 128); ++c) {
      largest = std::max(largest, std::abs(row[usize(c)]));
    }
    coarse[0] += coarse[0] > row[0] ? largest / 127.0f : -largest / 127.0f;
    CHECK(worst_of_block(row, coarse) > 1.0 / 254 * (1 + 1e-4));
  }
}

TEST_CASE("what was decoded travels on unchanged") {
  for (const Wire wire : formats) {
    for (const std::int64_t width : widths) {
      for (unsigned seed = 0; seed < 20; ++seed) {
        INFO(name_of(wire) << ", width " << width << ", seed " << seed);
        const Coded once = encoded(wire, some_rows(2, width, seed), width);
        CHECK(encoded(wire, decoded(wire, once, width), width) == once);
      }
    }
  }
}

TEST_CASE("every entrance gives the same bits") {
  for (const Wire wire : formats) {
    // The last is large enough for threads.
    for (const auto& [count, width] : {std::pair<std::int64_t, std::int64_t>{4, 129}, {3, 2500}, {60, 1000}}) {
      INFO(name_of(wire) << ", width " << width);
      const Floats rows = some_rows(count, width, 7);
      const std::int64_t bytes = wire_row_bytes(wire, width);
      const Coded coded = encoded(wire, rows, width);
      const Floats back = decoded(wire, coded, width);

      std::vector<std::int32_t> index;  // backwards, and one row twice
      for (std::int64_t i = count - 1; i >= 0; --i) index.push_back(static_cast<std::int32_t>(i));
      index.push_back(1);
      Coded indexed(usize((count + 1) * bytes) + 8, std::byte{0xaa});
      encode_rows(wire, rows.data(), index, width, indexed.data());
      for (std::size_t i = 0; i < index.size(); ++i) {
        CHECK(std::equal(coded.begin() + index[i] * bytes, coded.begin() + (index[i] + 1) * bytes,
                         indexed.begin() + isize(i) * bytes));
      }
      CHECK(std::all_of(indexed.end() - 8, indexed.end(), [](std::byte b) { return b == std::byte{0xaa}; }));

      Floats rounded = rows;
      round_rows(wire, rounded.data(), count, width);
      CHECK(same(rounded, back));

      const Floats before = some_rows(1, width, 8);
      Floats sum = before;
      Floats wanted = before;
      add_decoded(wire, coded.data(), width, sum.data());
      for (std::size_t c = 0; c < wanted.size(); ++c) wanted[c] += back[c];
      CHECK(same(sum, wanted));
    }
  }
}

TEST_CASE("a broken number is never hidden, and touches no other block") {
  for (const float broken : {nan_value, -nan_value, infinity, -infinity}) {
    for (const std::int64_t at : {0, 127, 128, 299}) {
      Floats row = some_rows(1, 300, 3);
      const Floats whole = travelled(Wire::I8, row, 300);
      row[usize(at)] = broken;
      const Floats got = travelled(Wire::I8, row, 300);
      for (std::int64_t c = 0; c < 300; ++c) {
        const bool in_its_block = c / 128 == at / 128;
        CHECK((in_its_block ? std::isnan(got[usize(c)]) : got[usize(c)] == whole[usize(c)]));
      }
      CHECK(same(travelled(Wire::I8, got, 300), got));
      const Floats half = travelled(Wire::BF16, row, 300);
      CHECK((std::isnan(broken) ? std::isnan(half[usize(at)]) : half[usize(at)] == broken));
    }
  }
  CHECK(std::isinf(travelled(Wire::BF16, {FLT_MAX}, 1)[0]));
}

TEST_CASE("zeros, the ends of the range and denormal numbers") {
  CHECK(travelled(Wire::I8, Floats(200, 0.0f), 200) == Floats(200, 0.0f));
  CHECK(travelled(Wire::I8, Floats(200, -0.0f), 200) == Floats(200, 0.0f));
  for (int exponent = -149; exponent < 128; ++exponent) {
    INFO("2^" << exponent);
    for (const float factor : {1.0f, 1.3f, 1.999f}) {
      Floats row = some_rows(1, 128, 5);
      const float largest = *std::max_element(row.begin(), row.end(), [](float a, float b) { return abs(a) < abs(b); });
      for (float& v : row) {
        v = std::clamp(std::ldexp(v / std::abs(largest) * factor, exponent), -FLT_MAX, FLT_MAX);
      }
      const Floats got = travelled(Wire::I8, row, 128);
      CHECK(worst_of_block(row, got) <= (exponent <= -101 ? 1.0 / 127 : 1.0 / 254) * (1 + 1e-4));
      CHECK(encoded(Wire::I8, row, 128) == int8_oracle(row));
      CHECK(travelled(Wire::I8, got, 128) == got);
      CHECK(travelled(Wire::BF16, row, 128)[7] == bf16_oracle(row[7]));
    }
  }
  CHECK(travelled(Wire::I8, {FLT_MAX, -FLT_MAX}, 2)[1] < -FLT_MAX * 0.9999f);
  CHECK(std::isfinite(travelled(Wire::I8, {FLT_MAX}, 1)[0]));
  CHECK(travelled(Wire::I8, {0x1p-149f, -0x7fp-149f}, 2) == Floats{0x1p-149f, -0x7fp-149f});
}

TEST_CASE("the same bits for every vector width") {
  std::vector<Coded> coded;
  std::vector<Floats> back;
  for (const bool baseline : {true, false}) {
    const BaselineVectors vectors(baseline);
    for (const Wire wire : formats) {
      for (const std::int64_t width : widths) {
        Floats rows = some_rows(4, width, 11);
        if (width > 100) rows[usize(width + 77)] = nan_value;
        coded.push_back(encoded(wire, rows, width));
        back.push_back(decoded(wire, coded.back(), width));
        add_decoded(wire, coded.back().data(), width, rows.data());
        back.push_back(rows);
      }
    }
  }
  const std::size_t half = coded.size() / 2;
  for (std::size_t i = 0; i < half; ++i) CHECK(coded[i] == coded[half + i]);
  for (std::size_t i = 0; i < 2 * half; ++i) CHECK(same(back[i], back[2 * half + i]));
}
