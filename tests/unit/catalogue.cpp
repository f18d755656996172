// What a model consists of, against formulas; and the memory that its parameters are foretold to take.
#include "trainer/model/catalogue.h"

#include "tests/support/catch.h"
#include "trainer/config/load.h"
#include "trainer/loop/memory_plan.h"

#include <algorithm>
#include <set>
#include <string>

using namespace switchyard;

namespace {

Config config_with(std::vector<std::string> more) {
  std::vector<std::string> sets = {"model.vocab=100", "model.d_model=48", "model.layers=4",
                                   "model.heads=4",   "model.kv_heads=2", "model.d_ff=40",
                                   "moe.experts=10",  "moe.top_k=3",      "model.seq_len=64"};
  sets.insert(sets.end(), more.begin(), more.end());
  return config_or_throw(load_config("", sets, 1, DataFiles::NotNeeded));
}

}  // namespace

TEST_CASE("parameters are counted as the formulas say") {
  const std::int64_t attention = 48 * 48 + 2 * 24 * 48 + 48 * 48;
  const std::int64_t expert = 3 * 40 * 48;
  const std::int64_t frame = 100 * 48 + 48 + 4 * (attention + 2 * 48);

  ParameterCounts counts = count_parameters(config_with({}));
  CHECK(counts.total == frame + 4 * (10 * 48 + 10 * expert));
  CHECK(counts.experts == 4 * 10 * expert);
  CHECK(counts.active == frame + 4 * (10 * 48 + 3 * expert));

  counts = count_parameters(config_with({"moe.every=2", "moe.shared_experts=2", "model.tie_embeddings=false"}));
  CHECK(counts.total == frame + 100 * 48 + 2 * expert + 2 * (10 * 48 + 10 * expert + 2 * expert));
  CHECK(counts.experts == 2 * 10 * expert);

  counts = count_parameters(config_with({"moe.every=0", "model.activation=gelu", "model.norm=layer"}));
  CHECK(counts.total == frame + 48 + 4 * 2 * 48 + 4 * 2 * 40 * 48);
  CHECK(counts.active == counts.total);
  CHECK(counts.total != frame);  // a formula that leaves something out is seen
}

TEST_CASE("names are unique, and matrices alone decay") {
  const Config config = config_with({"moe.shared_experts=1", "moe.every=2", "model.norm=layer"});
  std::set<std::string> names;
  for (const ParameterSpec& spec : make_catalogue(config)) {
    CHECK(names.insert(spec.name).second);
    CHECK(spec.decay == (spec.shape.rank() == 2 && spec.name != "embed_tokens.weight"));
    CHECK((spec.deviation > 0 || spec.shape.rank() == 1));
    CHECK(spec.owner.replicated() == (spec.name.find(".experts.") == std::string::npos));
  }
  CHECK(names.count("layers.3.experts.9.w_down") == 1);
  CHECK(names.count("layers.1.router.weight") == 1);
  CHECK(names.count("layers.0.mlp.up_proj.weight") == 1);
  CHECK(is_moe_layer(config, 1));
  CHECK_FALSE(is_moe_layer(config, 2));
}

TEST_CASE("memory: weights, gradients and moments are those of the parameters") {
  for (const char* numerics : {"reproducible", "fast"}) {
    const Config config = config_with({std::string("train.numerics=") + numerics});
    const MemoryPlan plan = plan_memory(config, make_grid(1, 0, 10), Rank(0), 1, Bytes(0));
    const std::int64_t elements = count_parameters(config).total;
    CHECK(plan.weights == 4 * elements);
    CHECK(plan.optimizer == 8 * elements);
    CHECK(plan.gradients == (config.train.numerics == Numerics::Fast ? 4 : 8) * elements);
  }
}

TEST_CASE("memory: ranks that share the experts need less each, and all experts are somewhere") {
  const Config config = config_with({});
  const std::int64_t experts = count_parameters(config).experts;
  const std::int64_t frame = count_parameters(config).total - experts;
  for (const int ranks : {1, 2, 3, 4}) {
    const Grid grid = make_grid(ranks, 0, 10);
    std::int64_t weights = 0;
    for (int r = 0; r < ranks; ++r) weights += plan_memory(config, grid, Rank(r), 1, Bytes(0)).weights;
    CHECK(weights == 4 * (ranks * frame + experts));
  }
}

TEST_CASE("memory: with ZeRO all moments are somewhere, once, and the banner is that of the largest rank") {
  const Config config = config_with({"parallel.zero=1"});
  const std::int64_t all = 8 * count_parameters(config).total;
  const std::int64_t tensors = isize(make_catalogue(config).size());
  for (const int ranks : {1, 2, 3, 4, 8}) {
    for (const int expert : {0, 1, 3}) {
      if (expert > ranks) continue;
      const Grid grid = make_grid(ranks, expert, 10);
      std::int64_t moments = 0;
      std::int64_t most = 0;
      for (int r = 0; r < ranks; ++r) {
        const MemoryPlan plan = plan_memory(config, grid, Rank(r), 1, Bytes(0));
        moments += plan.optimizer;
        most = std::max(most, plan.total());
      }
      CAPTURE(ranks, expert);
      CHECK(moments >= all);
      CHECK(moments < all + 8 * ranks * tensors);  // shares are rounded up
      CHECK(plan_largest_memory(config, grid, 1, Bytes(0)).total() == most);
    }
  }
}
