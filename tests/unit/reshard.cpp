// Rewriting a checkpoint: the plan (each tensor once, experts whole, files even) and the files that it gives.
#include "trainer/checkpoint/reshard.h"

#include "comm/group/topology.h"
#include "tests/support/catch.h"
#include "tests/support/checkpoint_state.h"
#include "tests/support/files.h"
#include "tests/support/solo_group.h"
#include "trainer/checkpoint/audit.h"
#include "trainer/checkpoint/extract.h"
#include "trainer/checkpoint/names.h"

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>

namespace fs = std::filesystem;

namespace switchyard::test {
namespace {

using namespace checkpoint;
using By = ReshardOptions::By;

// Layers of 8 and of 5 experts and seven replicated tensors, with moments in up to three pieces in files of their own.
Manifest scattered_manifest() {
  Manifest manifest;
  manifest.ranks = 4;
  const auto add = [&](const std::string& name, Owner owner, std::vector<std::int64_t> shape, int number) {
    for (const StateKind kind : {StateKind::Weight, StateKind::Moment1, StateKind::Moment2}) {
      TensorRecord record;
      record.name = name;
      record.kind = kind;
      record.owner = owner;
      record.shape = shape;
      const std::int64_t pieces = kind == StateKind::Weight ? 1 : 1 + number % 3;
      for (std::int64_t i = pieces; i-- > 0;) {  // the last piece first
        record.first = record.size() * i / pieces;
        record.count = record.size() * (i + 1) / pieces - record.first;
        record.file = fmt::format("{}-{}.h5", owner.replicated() ? "replicated" : "experts", (number + i) % 4);
        record.path = dataset_path(record);
        manifest.tensors.push_back(record);
      }
    }
  };
  for (int i = 0; i < 7; ++i) add(fmt::format("r{}.weight", i), {}, {3 + i, 5 * (1 + i * i)}, i);
  for (int layer = 0; layer < 2; ++layer) {
    for (int expert = 0; expert < 8 - 3 * layer; ++expert) {
      const std::string prefix = fmt::format("layers.{}.experts.{}.", layer, expert);
      for (const char* part : {"w_up", "w_down"}) add(prefix + part, {layer, expert}, {5, 9}, expert);
    }
  }
  return manifest;
}

std::vector<ReshardOptions> all_options() {
  std::vector<ReshardOptions> all;
  for (const bool drop : {false, true}) {
    all.push_back({By::Source, 0, drop});
    for (const int ranks : {1, 2, 3, 4, 7, 8, 11}) all.push_back({By::Ranks, ranks, drop});
    for (const int each : {1, 2, 5, 13, 100}) all.push_back({By::ExpertsPerFile, each, drop});
  }
  return all;
}

std::string fault_of_plan(const ReshardPlan& plan, const Manifest& manifest, const ReshardOptions& options = {}) {
  return error_of([&] { check_plan(plan, manifest, options); }).message;
}

// The first tensor that is put together from pieces.
PlannedTensor& in_pieces(ReshardPlan& plan) {
  for (PlannedFile& file : plan.files) {
    for (PlannedTensor& tensor : file.tensors) {
      if (tensor.sources.size() > 1) return tensor;
    }
  }
  throw std::logic_error("the test's manifest has no pieces");
}

// Also the index, so that a folder that is the same is the same to the bit.
std::map<std::string, std::string> bytes_of_files(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) files[entry.path().filename()] = read_file(entry.path());
  return files;
}

TestState whole_model() {
  TestState state(7);
  state.add_model([](int, int) { return true; }, true);
  return state;
}

// Saved by one rank, each moment in two pieces.
fs::path save_in_pieces(const fs::path& folder) {
  TestState state = whole_model();
  state.fill();
  std::vector<StateTensor> tensors;
  for (StateTensor tensor : state.tensors()) {
    if (tensor.kind != StateKind::Weight) {
      const std::int64_t size = tensor.shape.size();
      tensor.count = size / 3;
      tensors.push_back(tensor);
      tensor.data += tensor.count;
      tensor.offset = tensor.count;
      tensor.count = size - tensor.count;
    }
    tensors.push_back(tensor);
  }
  return save_checkpoint(solo_group(), folder, run_state(20), tensors, 0);
}

bool loads(const fs::path& folder) {
  TestState state = whole_model();
  load_tensors(folder, state.tensors());
  return state.first_difference().empty();
}

Resharded reshard(const fs::path& from, const fs::path& to, const ReshardOptions& options) {
  return reshard_checkpoint(from, to, options, [](std::int64_t, std::int64_t) {});
}

}  // namespace

TEST_CASE("a plan has each tensor once, experts whole and files even") {
  const Manifest manifest = scattered_manifest();
  for (const ReshardOptions& options : all_options()) {
    INFO(static_cast<int>(options.by) << " " << options.count << " " << options.drop_optimizer);
    const ReshardPlan plan = plan_reshard(manifest, options);
    CHECK(fault_of_plan(plan, manifest, options).empty());
    std::int64_t wanted = 0;
    for (const TensorRecord& tensor : manifest.tensors) {
      if (!options.drop_optimizer || tensor.kind == StateKind::Weight) wanted += tensor.bytes();
    }
    CHECK(plan.bytes() == wanted);
    std::vector<std::int64_t> replicated;
    for (const PlannedFile& file : plan.files) {
      std::set<std::pair<int, int>> experts;
      for (const PlannedTensor& tensor : file.tensors) {
        const Owner owner = tensor.target.owner;
        if (!owner.replicated()) experts.emplace(owner.layer, owner.expert);
        if (owner.replicated() || options.by != By::Ranks) continue;
        const int in_layer = owner.layer == 0 ? 8 : 5;
        const int ranks = static_cast<int>(std::min<std::int64_t>(options.count, in_layer));
        CHECK(file.rank == balanced_owner(in_layer, ranks, owner.expert));
      }
      if (experts.empty()) replicated.push_back(file.bytes());
      if (options.by == By::ExpertsPerFile) CHECK(isize(experts.size()) <= options.count);
    }
    const std::int64_t largest = 9 * 5 * 37 * 4 * (options.drop_optimizer ? 1 : 3);
    const auto [least, most] = std::minmax_element(replicated.begin(), replicated.end());
    CHECK(*most - *least <= largest);
    CHECK(isize(replicated.size()) == (options.by == By::Ranks ? std::min<std::int64_t>(options.count, 7) : 4));
  }
  CHECK(plan_reshard(manifest, {By::ExpertsPerFile, 1, false}).files.size() == 4 + 13);
  CHECK(plan_reshard(manifest, {By::Ranks, 3, false}).files.back().name == "experts-00002-of-00003.h5");
  CHECK(plan_reshard(manifest, {By::Ranks, 3, false}).ranks == 3);
  CHECK(error_of([&] { plan_reshard(manifest, {By::Ranks, 1000000, false}); }).exit_code == 2);
}

TEST_CASE("a plan that loses, doubles or cuts something is caught") {
  const Manifest manifest = scattered_manifest();
  const ReshardPlan right = plan_reshard(manifest, {By::Ranks, 3, false});
  const auto broken = [&](const auto& harm) {
    ReshardPlan plan = right;
    harm(plan);
    return fault_of_plan(plan, manifest);
  };
  CHECK(broken([](ReshardPlan&) {}).empty());
  CHECK_THAT(broken([](ReshardPlan& plan) { plan.files.back().tensors.pop_back(); }),
             Catch::Contains("leaves out layer"));
  CHECK_THAT(
      broken([](ReshardPlan& plan) { plan.files.front().tensors.push_back(plan.files.front().tensors.front()); }),
      Catch::Contains("twice"));
  CHECK_THAT(broken([](ReshardPlan& plan) { in_pieces(plan).sources.pop_back(); }), Catch::Contains("elements of"));
  CHECK_THAT(broken([](ReshardPlan& plan) { std::swap(in_pieces(plan).sources[0], in_pieces(plan).sources[1]); }),
             Catch::Contains("wrong pieces"));
  CHECK_THAT(broken([](ReshardPlan& plan) {
               PlannedFile& last = plan.files.back();
               PlannedFile& other = plan.files[plan.files.size() - 2];
               other.tensors.push_back(last.tensors.back());
               other.tensors.back().target.file = other.name;
               last.tensors.pop_back();
             }),
             Catch::Contains("cuts an expert"));
  CHECK_THAT(fault_of_plan(right, manifest, {By::Ranks, 3, true}), Catch::Contains("keeps"));
}

TEST_CASE("any chain of reshards holds the same state, and ends with the same files") {
  const Scratch scratch;
  const fs::path source = save_in_pieces(scratch.path());
  REQUIRE(loads(source));
  const auto at = [&](const char* name) { return scratch.path() / name; };
  reshard(source, at("four"), {By::Ranks, 4, false});
  fs::path last = source;
  const std::vector<std::pair<const char*, ReshardOptions>> chain = {
      {"eight", {By::Ranks, 8, false}}, {"three", {By::Ranks, 3, false}}, {"each", {By::ExpertsPerFile, 1, false}},
      {"same", {By::Source, 0, false}}, {"one", {By::Ranks, 1, false}},   {"again", {By::Ranks, 4, false}}};
  for (const auto& [name, options] : chain) {
    const Resharded done = reshard(last, at(name), options);
    CHECK(loads(at(name)));
    const Audit audit = audit_checkpoint(at(name));
    CHECK(audit.faults.empty());
    CHECK(audit.strangers.empty());
    CHECK(audit.bytes == done.bytes);
    CHECK(std::all_of(audit.manifest->tensors.begin(), audit.manifest->tensors.end(),
                      [](const TensorRecord& tensor) { return tensor.whole(); }));
    last = at(name);
  }
  CHECK(bytes_of_files(at("again")) == bytes_of_files(at("four")));
  CHECK(bytes_of_files(at("three")) != bytes_of_files(at("four")));
  CHECK(fs::exists(at("each") / "experts-00007-of-00008.h5"));  // 3 and 5 experts
  CHECK(bytes_of_files(at("each")).at("experts-00007-of-00008.h5") ==
        bytes_of_files(at("same")).at("experts-00007-of-00008.h5"));

  reshard(source, at("release"), {By::Source, 0, true});
  TestState weights = whole_model();
  CHECK_THAT(error_of([&] { load_tensors(at("release"), weights.tensors()); }).message,
             Catch::Contains("holds weights only"));
  std::erase_if(weights.tensors(), [](const StateTensor& tensor) { return tensor.kind != StateKind::Weight; });
  load_tensors(at("release"), weights.tensors());
  CHECK(weights.first_difference().empty());
}

TEST_CASE("a reshard that fails leaves nothing, and writes over nothing") {
  const Scratch scratch;
  const fs::path source = save_in_pieces(scratch.path() / "run");
  const fs::path target = scratch.path() / "target";
  const Manifest manifest = read_manifest(source);
  const auto victim = std::find_if(manifest.tensors.begin(), manifest.tensors.end(), [](const TensorRecord& tensor) {
    return tensor.name == "layers.1.experts.2.w_up" && tensor.kind == StateKind::Moment2;
  });
  const fs::path file = source / victim->file;
  const std::string right = read_file(file);
  std::string wrong = right;
  wrong[usize(victim->offset)] = static_cast<char>(wrong[usize(victim->offset)] ^ 4);
  std::ofstream(file, std::ios::binary) << wrong;
  Told told = error_of([&] { reshard(source, target, {By::Ranks, 2, false}); });
  CHECK(told.exit_code == 65);
  CHECK_THAT(told.message, Catch::Contains("layer 1 expert 2 (layers.1.experts.2.w_up, moment v"));
  told = error_of([&] { extract_expert(source, 1, 2, target, false); });
  CHECK(told.exit_code == 65);
  CHECK(std::distance(fs::directory_iterator(scratch.path()), {}) == 1);  // the run alone
  std::ofstream(file, std::ios::binary) << right.substr(0, right.size() - 1);
  told = error_of([&] { reshard(source, target, {By::Ranks, 2, false}); });
  CHECK(told.exit_code == 65);
  CHECK_THAT(told.message, Catch::Contains("truncated"));
  std::ofstream(file, std::ios::binary) << right;

  // What a killed one has left is cleared away by the next; an empty folder is as good as none.
  fs::create_directories(scratch.path() / "target.tmp-test-run");
  std::ofstream(scratch.path() / "target.tmp-test-run" / ".switchyard-writing") << "run test-run, process 1\n";
  fs::create_directories(target);
  reshard(source, target, {By::Ranks, 2, false});
  CHECK(loads(target));
  CHECK(std::distance(fs::directory_iterator(scratch.path()), {}) == 2);

  const auto before = bytes_of_files(target);
  for (const fs::path& taken : {target, file, source, source / "inside", scratch.path() / "step-00000021"}) {
    told = error_of([&] { reshard(source, taken, {By::Ranks, 3, false}); });
    CHECK(told.exit_code == 2);
    CHECK_THAT(told.message, Catch::Contains(taken.string()));
  }
  CHECK(bytes_of_files(target) == before);
  CHECK(std::distance(fs::directory_iterator(scratch.path()), {}) == 2);
}

}  // namespace switchyard::test
