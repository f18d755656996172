// The loss and its gradients against double precision, over one chunk of rows and over several.
#include "layers/ops/cross_entropy.h"

#include "comm/reduce/exact.h"
#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

// One loss: T tokens, V vocabulary, D width.
struct Problem {
  std::int64_t tokens, vocabulary, width;
  std::vector<float> hidden, weight;
  std::vector<std::int32_t> targets;
  float scale = 0.25f;

  Problem(std::int64_t t, std::int64_t v, std::int64_t d) : tokens(t), vocabulary(v), width(d) {
    hidden = random_values(t * d, 1);
    weight = random_values(v * d, 2, 2 / std::sqrt(double(d)));
    targets = random_indices(t, v, 3);
    for (std::size_t i = 2; i < targets.size(); i += 7) targets[i] = -1;  // not counted
  }
};

struct Result {
  std::vector<float> losses, dhidden, dweight;
  bool non_finite = false;
};

std::vector<float> losses_of(const Problem& p) {
  PackedMatrix forward;
  forward.pack_transposed(view(p.weight, {p.vocabulary, p.width}));
  std::vector<float> losses(usize(p.tokens), 9.0f);
  Arena scratch(cpu_device());
  cross_entropy(view(p.hidden, {p.tokens, p.width}), forward, view(p.targets), scratch, view(losses));
  CHECK(scratch.in_use() == Bytes(0));
  return losses;
}

Result run(const Problem& p, Numerics numerics) {
  PackedMatrix forward, backward;
  forward.pack_transposed(view(p.weight, {p.vocabulary, p.width}));
  backward.pack(view(p.weight, {p.vocabulary, p.width}));
  Parameter parameter(cpu_device(), "head", {p.vocabulary, p.width}, Owner{}, true, numerics);
  Result r{std::vector<float>(usize(p.tokens), 9.0f), std::vector<float>(p.hidden.size(), 9.0f),
           std::vector<float>(p.weight.size())};
  Arena scratch(cpu_device());
  cross_entropy_and_backward(view(p.hidden, {p.tokens, p.width}), forward, backward, view(p.targets), p.scale, scratch,
                             view(r.losses), view(r.dhidden, {p.tokens, p.width}), parameter.gradient());
  CHECK(scratch.in_use() == Bytes(0));
  const std::int64_t scratch_told = cross_entropy_scratch(p.tokens, p.vocabulary, p.width, numerics).value();
  CHECK(scratch.peak().value() >= scratch_told);
  CHECK(scratch.peak().value() < scratch_told + 128);  // two tensors, each begins at a multiple of 64 bytes
  if (numerics == Numerics::Reproducible) {
    exact_to_float(parameter.gradient().exact, parameter.size(), 1.0, r.dweight.data());
  } else {
    r.dweight.assign(parameter.gradient().plain, parameter.gradient().plain + parameter.size());
  }
  r.non_finite = parameter.non_finite();
  return r;
}

struct Twin {
  std::vector<double> losses, dhidden, dweight;
};

Twin twin_of(const Problem& p) {
  Twin twin{{}, std::vector<double>(p.hidden.size()), std::vector<double>(p.weight.size())};
  std::vector<double> logit(usize(p.vocabulary));
  for (std::int64_t t = 0; t < p.tokens; ++t) {
    if (p.targets[usize(t)] < 0) {
      twin.losses.push_back(0);
      continue;
    }
    const float* h = &p.hidden[usize(t * p.width)];
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    for (std::int64_t v = 0; v < p.vocabulary; ++v) {
      double dot = 0;
      for (std::int64_t j = 0; j < p.width; ++j) dot += double(h[j]) * p.weight[usize(v * p.width + j)];
      logit[usize(v)] = dot;
      max = std::max(max, dot);
    }
    for (const double x : logit) sum += std::exp(x - max);
    twin.losses.push_back(max + std::log(sum) - logit[usize(p.targets[usize(t)])]);
    for (std::int64_t v = 0; v < p.vocabulary; ++v) {
      const double d = p.scale * (std::exp(logit[usize(v)] - max) / sum - (v == p.targets[usize(t)] ? 1 : 0));
      for (std::int64_t j = 0; j < p.width; ++j) {
        twin.dhidden[usize(t * p.width + j)] += d * p.weight[usize(v * p.width + j)];
        twin.dweight[usize(v * p.width + j)] += d * h[j];
      }
    }
  }
  return twin;
}

}  // namespace

TEST_CASE("losses and gradients") {
  // The last two take several chunks of rows: 1,024 a chunk for a small vocabulary.
  for (const auto& [t, v, d] : {std::array{1, 1, 1}, std::array{5, 3, 2}, std::array{33, 300, 17},
                                std::array{64, 2500, 8}, std::array{1025, 33, 7}, std::array{2100, 20, 9}}) {
    const Problem problem(t, v, d);
    const Twin twin = twin_of(problem);
    CHECK(worst_error(losses_of(problem), twin.losses, 0.5) < 2e-6);
    for (const Numerics numerics : {Numerics::Reproducible, Numerics::Fast}) {
      Result r = run(problem, numerics);
      CHECK(same_bits(r.losses, losses_of(problem)));
      CHECK(worst_error(r.dhidden, twin.dhidden, 0.05) < 2e-5);
      CHECK(worst_error(r.dweight, twin.dweight, 0.05) < 2e-5);
      CHECK_FALSE(r.non_finite);
      r.dweight.back() += 1e-3f;  // planted
      CHECK(worst_error(r.dweight, twin.dweight, 0.05) > 2e-5);
    }
  }
}

TEST_CASE("the twin's gradients are the derivatives of its loss") {
  Problem problem(4, 6, 5);
  const Twin twin = twin_of(problem);
  const auto total = [&] {
    double sum = 0;
    for (const double loss : twin_of(problem).losses) sum += problem.scale * loss;
    return sum;
  };
  for (auto [values, gradient] :
       {std::pair{&problem.hidden, &twin.dhidden}, std::pair{&problem.weight, &twin.dweight}}) {
    for (std::size_t i = 0; i < values->size(); ++i) {
      const float kept = (*values)[i], above = kept + 0x1p-8f, below = kept - 0x1p-8f;
      (*values)[i] = above;
      const double high = total();
      (*values)[i] = below;
      const double low = total();
      (*values)[i] = kept;
      REQUIRE((high - low) / (double(above) - below) == Approx((*gradient)[i]).margin(1e-4));
    }
  }
}

TEST_CASE("the gradient of the projection is one partial, added to what is there") {
  const Problem problem(1500, 12, 3);
  PackedMatrix forward, backward;
  forward.pack_transposed(view(problem.weight, {12, 3}));
  backward.pack(view(problem.weight, {12, 3}));
  const Result once = run(problem, Numerics::Reproducible);
  Parameter parameter(cpu_device(), "head", {12, 3}, Owner{}, true, Numerics::Reproducible);
  std::vector<float> losses(1500), dhidden(4500), sum(36);
  Arena scratch(cpu_device());
  for (int i = 0; i < 2; ++i) {
    cross_entropy_and_backward(view(problem.hidden, {1500, 3}), forward, backward, view(problem.targets), problem.scale,
                               scratch, view(losses), view(dhidden, {1500, 3}), parameter.gradient());
  }
  exact_to_float(parameter.gradient().exact, 36, 0.5, sum.data());
  CHECK(same_bits(sum, once.dweight));
}

TEST_CASE("large logits lose no digits of the loss") {
  Problem problem(3, 4, 1);
  problem.hidden = {1000, -1000, 1};
  problem.weight = {80, 80, -80, 1};
  problem.targets = {0, 2, 3};
  const std::vector<float> losses = losses_of(problem);
  CHECK(losses[0] == Approx(std::log(2.0)).epsilon(1e-7));
  CHECK(losses[1] == 0);
  CHECK(losses[2] == Approx(79 + std::log(2.0)).epsilon(1e-7));
}

TEST_CASE("a NaN or an infinity anywhere in a row shows in its loss and in the gradient") {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    Problem problem(8, 50, 4);
    problem.targets.assign(8, 7);
    problem.weight[4 * 33] = bad;  // column 33 of the logits, which is nobody's target
    const Result r = run(problem, Numerics::Reproducible);
    CHECK(r.non_finite);
    for (std::size_t t = 0; t < 8; ++t) {
      // -infinity is a probability of 0, no fault of its own.
      const bool below = std::isinf(bad) && problem.hidden[t * 4] < 0;
      CHECK(std::isfinite(r.losses[t]) == below);
    }
  }
}

TEST_CASE("one result for every vector width and thread count") {
  for (const auto& problem : {Problem(130, 77, 19), Problem(1100, 40, 8)}) {
    CHECK(one_result([&] {
      Result r = run(problem, Numerics::Reproducible);
      r.losses.insert(r.losses.end(), r.dhidden.begin(), r.dhidden.end());
      r.losses.insert(r.losses.end(), r.dweight.begin(), r.dweight.end());
      return r.losses;
    }));
  }
}

TEST_CASE("a target beyond the vocabulary is told with its position") {
  Problem problem(20, 16, 4);
  problem.targets[11] = 16;
  for (const bool backward : {false, true}) {
    std::string message = "nothing";
    try {
      backward ? void(run(problem, Numerics::Fast)) : void(losses_of(problem));
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::Data);
      message = error.what();
    }
    CHECK(message == "target 16 at position 11 is beyond the vocabulary of 16");
  }
}
