#include "layers/ops/embedding.h"

#include "comm/reduce/exact.h"
#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

constexpr std::int64_t tokens_count = 333, vocabulary = 41, width = 70;

// The gradient as fp32, from whichever sum the parameter has.
std::vector<float> gradient_of(const Parameter& parameter) {
  std::vector<float> gradient(usize(parameter.size()));
  const GradientSum& sum = parameter.gradient();
  if (sum.exact != nullptr) {
    exact_to_float(sum.exact, sum.size, 1.0, gradient.data());
  } else {
    gradient.assign(sum.plain, sum.plain + sum.size);
  }
  return gradient;
}

}  // namespace

TEST_CASE("embedding looks rows up") {
  const std::vector<std::int32_t> tokens = random_indices(tokens_count, vocabulary, 1);
  const std::vector<float> table = random_values(vocabulary * width, 2);
  std::vector<float> y(usize(tokens_count * width));
  embedding(view(tokens), view(table, {vocabulary, width}), view(y, {tokens_count, width}));
  for (std::int64_t t = 0; t < tokens_count; ++t) {
    for (std::int64_t j = 0; j < width; ++j) {
      REQUIRE(y[usize(t * width + j)] == table[usize(tokens[usize(t)] * width + j)]);
    }
  }
}

TEST_CASE("the gradient is the sum over a token's positions, one partial a token") {
  const std::vector<std::int32_t> tokens =
      random_indices(tokens_count, vocabulary - 1, 3);  // the last one never occurs
  const std::vector<float> dy = random_values(tokens_count * width, 4);
  std::vector<float> wanted(usize(vocabulary * width), 0.0f);
  for (std::int64_t t = 0; t < tokens_count; ++t) {
    for (std::int64_t j = 0; j < width; ++j) {
      wanted[usize(tokens[usize(t)] * width + j)] += dy[usize(t * width + j)];
    }
  }
  for (const Numerics numerics : {Numerics::Reproducible, Numerics::Fast}) {
    Parameter table(cpu_device(), "table", {vocabulary, width}, Owner{}, false, numerics);
    embedding_backward(view(dy, {tokens_count, width}), view(tokens), table.gradient());
    // fp32 sums in token order are the definition, and these are not rounded by the fixed point's quantum of 2^-50.
    CHECK(worst_error(gradient_of(table), wanted, 1e-30) < 1e-12);
    embedding_backward(view(dy, {tokens_count, width}), view(tokens), table.gradient());
    std::vector<float> twice = wanted;
    for (float& value : twice) value *= 2;
    CHECK(worst_error(gradient_of(table), twice, 1e-30) < 1e-12);
    CHECK(worst_error(gradient_of(table), wanted, 1e-30) > 0.5);  // planted: accumulation is seen
    CHECK_FALSE(table.non_finite());
  }
}

TEST_CASE("a gradient that is not finite is marked") {
  Parameter table(cpu_device(), "table", {3, 2}, Owner{}, false, Numerics::Reproducible);
  const std::vector<std::int32_t> tokens = {1};
  const std::vector<float> dy = {1.0f, std::nanf("")};
  embedding_backward(view(dy, {1, 2}), view(tokens), table.gradient());
  CHECK(table.non_finite());
}

TEST_CASE("one result for every thread count") {
  const std::vector<std::int32_t> tokens = random_indices(tokens_count, vocabulary, 5);
  const std::vector<float> dy = random_values(tokens_count * width, 6);
  CHECK(one_result([&] {
    Parameter table(cpu_device(), "table", {vocabulary, width}, Owner{}, false, Numerics::Reproducible);
    embedding_backward(view(dy, {tokens_count, width}), view(tokens), table.gradient());
    return gradient_of(table);
  }));
}

TEST_CASE("a token beyond the vocabulary is told with its position") {
  const std::vector<float> table(usize(8 * 2)), y(6);
  const std::vector<std::int32_t> beyond = {3, 4711, 0}, below = {3, 1, -2};
  const auto message = [&](const std::vector<std::int32_t>& tokens) {
    try {
      embedding(view(tokens), view(table, {8, 2}), view(y, {3, 2}));
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::Data);
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  CHECK(message(beyond) == "token 4711 at position 1 is beyond the vocabulary of 8");
  CHECK(message(below) == "token -2 at position 2 is beyond the vocabulary of 8");
  Parameter parameter(cpu_device(), "table", {8, 2}, Owner{}, false, Numerics::Fast);
  CHECK_THROWS_WITH(embedding_backward(view(y, {3, 2}), view(beyond), parameter.gradient()),
                    "token 4711 at position 1 is beyond the vocabulary of 8");
}
