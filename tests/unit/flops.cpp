// The arithmetic of a token, against a count by hand.
#include "trainer/model/flops.h"

#include "tests/support/catch.h"

namespace switchyard {
namespace {

Config small() {
  Config config;
  config.model = {.vocab = 1000, .d_model = 64, .layers = 3, .heads = 4, .kv_heads = 2, .d_ff = 96, .seq_len = 128};
  config.moe = {.experts = 8, .top_k = 2, .every = 2};  // layer 1 is the mixture
  return config;
}

TEST_CASE("the products of a token", "[flops]") {
  Config config = small();
  const std::int64_t attention = 64 * 64 + 2 * (32 * 64) + 64 * 64;  // q, k and v, o
  const std::int64_t feed = 3 * 64 * 96;
  const std::int64_t layers = 3 * attention + 2 * feed + (8 * 64 + 2 * feed);
  CHECK(count_flops(config).product_parameters == layers + 1000 * 64);
  CHECK(count_flops(config).products == 6.0 * static_cast<double>(layers + 1000 * 64));
  config.model.tie_embeddings = false;  // the head's matrix is another one, and the table is none
  CHECK(count_flops(config).product_parameters == layers + 1000 * 64);
  config.moe.top_k = 1;
  CHECK(count_flops(config).product_parameters == layers - feed + 1000 * 64);
}

TEST_CASE("the attention of a token", "[flops]") {
  // 128 positions: 128 * 129 / 2 pairs, 2 products of 64 multiply-adds in forward and 4 in backward.
  const double pairs = 128.0 * 129.0 / 2.0;
  CHECK(count_flops(small()).attention == Approx(3 * pairs * 6 * 2 * 64 / 128.0).epsilon(1e-12));
}

}  // namespace
}  // namespace switchyard
