#include "layers/tensor/tensor.h"

#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <vector>

using namespace switchyard;
using switchyard::test::view;

TEST_CASE("a shape knows its sizes") {
  const Shape shape{2, 3, 5};
  CHECK(shape.rank() == 3);
  CHECK(shape.size() == 30);
  CHECK(shape[0] == 2);
  CHECK(shape[-1] == 5);
  CHECK(shape[-3] == 2);
  CHECK(shape.to_string() == "[2, 3, 5]");
  CHECK(Shape{0, 4}.size() == 0);
  CHECK(Shape().size() == 0);
  CHECK(Shape().to_string() == "[]");
  CHECK(Shape{2, 3} == Shape{2, 3});
  CHECK_FALSE(Shape{2, 3} == Shape{3, 2});
  CHECK_FALSE(Shape{2} == Shape{2, 1});
}

TEST_CASE("impossible shapes are refused") {
  CHECK_THROWS_AS((Shape{1, 2, 3, 4, 5}), Error);
  CHECK_THROWS_AS((Shape{2, -1}), Error);
  CHECK_THROWS_AS((Shape{std::int64_t{1} << 40, std::int64_t{1} << 40}), Error);
}

TEST_CASE("views share the memory that they show") {
  std::vector<float> values = test::random_values(24, 1);
  const Tensor tensor = view(values, {4, 2, 3});
  CHECK(tensor.cols() == 3);
  CHECK(tensor.rows() == 8);
  const Tensor part = tensor.slice(1, 2);
  CHECK(part.shape() == Shape{2, 2, 3});
  CHECK(part.f32() == values.data() + 6);
  CHECK(tensor.slice(4, 0).size() == 0);
  const Tensor flat = tensor.reshaped({24});
  flat.f32()[7] = 42;
  CHECK(part.f32()[1] == 42);
  CHECK_THROWS_WITH(tensor.reshaped({5, 5}), "[4, 2, 3] cannot be seen as [5, 5]: 24 elements against 25");
  CHECK_THROWS_AS(tensor.slice(3, 2), Error);
  CHECK_THROWS_AS(tensor.slice(-1, 2), Error);
  CHECK_THROWS_AS(tensor.slice(1, -1), Error);
  CHECK_THROWS_WITH(tensor.i32(), "a float32 tensor was read as int32");
  CHECK_FALSE(Tensor().defined());
  CHECK(Tensor().rows() == 0);
}

TEST_CASE("tensors come out of an arena") {
  Arena arena(cpu_device());
  const Tensor zero = allocate_zero(arena, {3, 7}, DType::I64);
  CHECK(zero.dtype() == DType::I64);
  for (std::int64_t i = 0; i < zero.size(); ++i) REQUIRE(zero.data<std::int64_t>()[i] == 0);
  const Tensor other = allocate(arena, {5});
  CHECK(reinterpret_cast<std::uintptr_t>(other.raw()) % 64 == 0);
  CHECK(other.raw() != zero.raw());
}

TEST_CASE("a wrong tensor is told with op, name and shapes") {
  const std::vector<float> values(6);
  const Tensor tensor = view(values, {2, 3});
  CHECK_NOTHROW(check_shape("op", "x", tensor, {2, 3}));
  CHECK_THROWS_WITH(check_shape("op", "x", tensor, {3, 2}), "op: x is [2, 3], wanted [3, 2]");
  CHECK_THROWS_WITH(check_shape("op", "x", Tensor(), {3}), "op: x is undefined, wanted [3]");
  CHECK_NOTHROW(check_tensor("op", "x", tensor, {2, 3}, cpu_device()));
  CHECK_THROWS_WITH(check_tensor("op", "x", tensor, {2, 3}, cpu_device(), DType::I32),
                    "op: x is float32, wanted int32");
}
