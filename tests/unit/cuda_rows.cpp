// Moving rows by index on a CUDA device against the CPU's.
#include "layers/ops/rows.h"
#include "layers/ops/rows_cuda.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

#include <numeric>

namespace switchyard::test {
namespace {

struct Case {
  std::int64_t slots, rows, width;
};
const std::vector<Case> cases = {{1, 1, 1}, {40, 7, 9}, {63, 64, 24}, {500, 31, 264}, {9, 5, 2048}, {300, 1000, 3}};

double tolerance(DType dtype) {
  return dtype == DType::F32 ? 1e-5 : 2e-2;
}

// Each op, on one device.
struct Results {
  std::vector<float> gathered, gathered_scaled, scattered, scattered_scaled, sums, dots;
};
Results run(const Case& c, Device& device, DType dtype, DType as) {
  const auto [slots, rows, width] = c;
  const DeviceTensor few(device, rounded(random_values(rows * width, 1), dtype), {rows, width}, as);
  const DeviceTensor many(device, rounded(random_values(slots * width, 2), dtype), {slots, width}, as);
  const DeviceTensor scale(device, random_values(slots, 3), {slots});
  const DeviceTensor index(device, random_indices(slots, rows, 4));
  // Every row at most once: the first `slots` of a shuffle, into a matrix with room for all.
  std::vector<std::int32_t> distinct(usize(slots + 5));
  std::iota(distinct.begin(), distinct.end(), 0);
  const auto random = random_indices(slots + 5, slots + 5, 5);
  for (std::size_t i = 0; i < distinct.size(); ++i) std::swap(distinct[i], distinct[usize(random[i])]);
  distinct.resize(usize(slots));
  const DeviceTensor once(device, distinct);

  const DeviceTensor y(device, Shape{slots, width}, as), y_scaled(device, Shape{slots, width}, as);
  gather_rows(few, index, y);
  gather_rows_scaled(few, index, scale, y_scaled);
  const std::vector<float> kept(usize((slots + 5) * width), 7.0F);
  const DeviceTensor to(device, kept, {slots + 5, width}, as), to_scaled(device, kept, {slots + 5, width}, as);
  scatter_rows(many, once, to);
  scatter_rows_scaled(many, once, scale, to_scaled);

  auto named = random_indices(slots, rows, 6);
  for (std::size_t i = 0; i < named.size(); i += 5) named[i] = -1;  // in no list
  const RowLists lists = row_lists(named, rows);
  const DeviceTensor order(device, lists.order), begin(device, lists.begin);
  const DeviceTensor sums(device, Shape{rows, width}, as), dots(device, Shape{slots});
  sum_rows(many, order, begin, sums);
  dot_rows(few, index, many, dots);
  return {y.values(), y_scaled.values(), to.values(), to_scaled.values(), sums.values(), dots.values()};
}

TEST_CASE("rows are gathered, scattered, summed and multiplied as on the CPU") {
  Device& cuda = cuda_device();
  for (const Case& c : cases) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      CAPTURE(c.slots, c.rows, c.width, name_of(dtype));
      const Results got = run(c, cuda, dtype, dtype);
      const Results wanted = run(c, cpu_device(), dtype, DType::F32);
      CHECK(same_bits(got.gathered, wanted.gathered));
      CHECK(same_bits(got.scattered, wanted.scattered));
      CHECK(worst_error(got.gathered_scaled, wanted.gathered_scaled, 1) < tolerance(dtype));
      CHECK(worst_error(got.scattered_scaled, wanted.scattered_scaled, 1) < tolerance(dtype));
      CHECK(worst_error(got.sums, wanted.sums, 1) < tolerance(dtype));
      if (dtype == DType::F32) CHECK(same_bits(got.sums, wanted.sums));
      CHECK(worst_error(got.dots, wanted.dots, std::sqrt(double(c.width))) < 1e-5);
    }
  }
  auto off = run(cases[1], cuda, DType::F32, DType::F32);
  std::swap(off.sums[0], off.sums[1]);  // planted
  CHECK(worst_error(off.sums, run(cases[1], cpu_device(), DType::F32, DType::F32).sums, 1) > tolerance(DType::F32));
}

TEST_CASE("lists of every length are in ascending order") {
  Device& device = cuda_device();
  // One row named by one slot, some by a few, one by hundreds, one by thousands; many that nobody names.
  constexpr std::int64_t rows = 2000;
  std::vector<std::int32_t> named;
  const auto random = random_indices(4000, 100, 7);
  for (const std::int32_t r : random) named.push_back(r < 60 ? 1999 : r < 70 ? 3 : r < 71 ? 1500 : r < 90 ? r : -1);
  named[7] = rows;  // beyond them
  RowLists wanted = row_lists(named, rows);
  const DeviceTensor row(device, named), order(device, std::vector<std::int32_t>(named.size(), -7)),
      begin(device, Shape{rows + 1}, DType::I32), cursors(device, Shape{rows}, DType::I32);
  const auto numbers = [](const Tensor& tensor) { return static_cast<std::int32_t*>(tensor.raw()); };
  cuda::make_row_lists(device, numbers(row), isize(named.size()), rows, numbers(order), numbers(begin),
                       numbers(cursors));
  CHECK(begin.indices() == wanted.begin);
  CHECK(order.indices() == wanted.order);
  std::swap(wanted.order[1], wanted.order[2]);  // planted
  CHECK(order.indices() != wanted.order);
}

TEST_CASE("an index beyond the rows reads and writes nothing") {
  Device& cuda = cuda_device();
  const DeviceTensor x(cuda, {1, 2, 3, 4, 5, 6}, {3, 2}), two(cuda, {1, 2, 3, 4}, {2, 2});
  const DeviceTensor index(cuda, std::vector<std::int32_t>{3, 1});
  const DeviceTensor y(cuda, Shape{2, 2}), dots(cuda, Shape{2});
  gather_rows(x, index, y);
  CHECK((std::isnan(y.values()[0]) && std::isnan(y.values()[1]) && y.values()[2] == 3 && y.values()[3] == 4));
  scatter_rows(two, index, x);
  CHECK(x.values() == std::vector<float>{1, 2, 3, 4, 5, 6});
  dot_rows(x, index, two, dots);
  CHECK((std::isnan(dots.values()[0]) && dots.values()[1] == 25));
}

}  // namespace
}  // namespace switchyard::test
