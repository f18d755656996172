// LABEL slow
// Work that is captured and done again: on the device itself, and for a model's micro-batches.
#include "comm/device/work.h"
#include "comm/transport/self.h"
#include "layers/ops/activation.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"
#include "trainer/config/load.h"
#include "trainer/loop/layout.h"
#include "trainer/model/model.h"

using namespace switchyard;
using namespace switchyard::test;

namespace {

TEST_CASE("captured work is done when it is launched, each time on what is there then") {
  Device& device = cuda_device();
  const DeviceTensor x(device, {1, 2, 3}, {3}), sum(device, {10, 20, 30}, {3});
  const std::unique_ptr<WorkGraph> graph = device.capture([&] { add_in_place(x, sum); });
  REQUIRE(graph != nullptr);
  CHECK(sum.values() == std::vector<float>{10, 20, 30});
  graph->launch();
  graph->launch();
  CHECK(sum.values() == std::vector<float>{12, 24, 36});
  device.fill(x.get().raw(), 0, Bytes(3 * 4), device.stream());
  graph->launch();
  CHECK(sum.values() == std::vector<float>{12, 24, 36});
}

TEST_CASE("what cannot be captured is told, and the device goes on") {
  Device& device = cuda_device();
  const DeviceTensor x(device, {1, 2, 3}, {3}), y(device, {1, 1, 1}, {3});
  CHECK_THROWS_WITH(device.capture([&] { x.values(); }), Catch::Contains("nothing may copy to the host"));
  CHECK_THROWS_WITH(device.capture([&] { Buffer(device, Bytes(64)); }), Catch::Contains("nothing may take memory"));
  add_in_place(x, y);
  CHECK(y.values() == std::vector<float>{2, 3, 4});
  CHECK(cpu_device().capture([] {}) == nullptr);
}

TEST_CASE("memory that has moved is known by its count") {
  Device& device = cuda_device();
  Arena arena(device, Bytes(1 << 12));
  const auto round = [&](std::int64_t bytes) {
    const ArenaScope scope(arena);
    arena.take(Bytes(bytes));
    arena.take(Bytes(bytes));
    return arena.moves();
  };
  const std::int64_t first = round(3000);
  CHECK(round(3000) > first);  // two chunks became one
  const std::int64_t settled = arena.moves();
  CHECK(round(3000) == settled);
  CHECK(round(100) == settled);
  CHECK(round(5000) > settled);
  const std::int64_t before = device.workspace_moves();
  device.workspace(Bytes(1 << 22));
  CHECK(device.workspace_moves() > before);
  const std::int64_t after = device.workspace_moves();
  device.workspace(Bytes(1 << 20));
  CHECK(device.workspace_moves() == after);
}

// Gradients of some micro-batches in turn, and which of them were graphs.
struct Trained {
  std::vector<std::vector<float>> gradients;
  std::vector<double> losses;
  std::vector<std::int64_t> graphs;
};
Trained train(bool with_graphs, const std::vector<std::string>& more) {
  std::vector<std::string> sets = {"model.vocab=23",
                                   "model.d_model=16",
                                   "model.layers=1",
                                   "model.heads=2",
                                   "model.d_ff=8",
                                   "model.seq_len=6",
                                   "moe.experts=4",
                                   "moe.top_k=2",
                                   "device=cuda",
                                   "train.micro_batch=2",
                                   "train.global_batch=2",
                                   "train.numerics=fast",
                                   with_graphs ? "train.graphs=true" : "train.graphs=false"};
  sets.insert(sets.end(), more.begin(), more.end());
  const Config config = config_or_throw(load_config("", sets, 1, DataFiles::NotNeeded));
  const Group group(make_self_transport());
  Layout layout(group, config);
  Device& device = cuda_device();
  Model model(config, device, layout.lane());
  Trained trained;
  for (std::uint64_t batch = 0; batch < 6; ++batch) {
    const std::int64_t sequences = batch == 4 ? 1 : 2;  // another size in between
    const auto tokens = random_indices(sequences * 6, 23, 2 * batch),
               targets = random_indices(sequences * 6, 23, 2 * batch + 1);
    const MicroBatchReport report = model.train({.sequences = sequences, .tokens = tokens, .targets = targets});
    trained.losses.push_back(report.loss + report.aux_loss + report.z_loss);
    trained.graphs.push_back(report.graphs);
    for (const auto& parameter : model.parameters().here()) {
      std::vector<float> gradient(usize(parameter->size()));
      device.copy_to_host(gradient.data(), parameter->gradient().plain, Bytes(parameter->size() * 4), device.stream());
      trained.gradients.push_back(std::move(gradient));
      // As an update does: weights change, and what products read of them is made anew.
      if (batch == 2) device.fill(parameter->value().raw(), 0x3c, Bytes(parameter->size() * 4), device.stream());
      if (batch == 2) parameter->touch();
      parameter->zero_gradient();
    }
  }
  return trained;
}

TEST_CASE("a micro-batch as a graph has the bits of its single kernels") {
  for (const auto& more : std::vector<std::vector<std::string>>{{"train.dtype=bf16", "train.recompute=block"},
                                                                {"moe.shared_experts=1", "train.recompute=experts"}}) {
    const Trained wanted = train(false, more), got = train(true, more);
    CHECK(got.losses == wanted.losses);
    REQUIRE(got.gradients.size() == wanted.gradients.size());
    for (std::size_t i = 0; i < got.gradients.size(); ++i) CHECK(same_bits(got.gradients[i], wanted.gradients[i]));
    // The first takes memory, the second takes none; another size in between begins anew.
    CHECK(got.graphs == std::vector<std::int64_t>{0, 0, 1, 1, 0, 0});
    CHECK(wanted.graphs == std::vector<std::int64_t>(6, 0));
  }
}

TEST_CASE("where the host must see the slots, what comes before and after that are graphs") {
  for (const std::string recompute : {"none", "block"}) {
    const std::vector<std::string> more = {"moe.capacity_factor=1.0", "model.layers=2", "moe.every=2",
                                           "train.recompute=" + recompute};
    const Trained wanted = train(false, more), got = train(true, more);
    CHECK(got.losses == wanted.losses);
    REQUIRE(got.gradients.size() == wanted.gradients.size());
    for (std::size_t i = 0; i < got.gradients.size(); ++i) CHECK(same_bits(got.gradients[i], wanted.gradients[i]));
    // The first takes memory and tells that there are slots to see; the second is watched.
    const std::int64_t parts = recompute == "none" ? 4 : 6;
    CHECK(got.graphs == std::vector<std::int64_t>{0, 0, parts, parts, 0, 0});
    CHECK(wanted.graphs == std::vector<std::int64_t>(6, 0));
  }
}

}  // namespace
