// RANKS 1 2 4
// Checkpoints over ranks: any layout writes, any layout loads; one rank's failure is everyone's, and what was there
// stays.
#include "comm/group/agree.h"
#include "comm/group/environment.h"
#include "comm/group/topology.h"
#include "tests/support/check.h"
#include "tests/support/checkpoint_state.h"
#include "trainer/checkpoint/audit.h"
#include "trainer/checkpoint/manifest.h"

#include <algorithm>
#include <csignal>
#include <fstream>
#include <set>

#include <sys/resource.h>

namespace fs = std::filesystem;
using namespace switchyard;
using test::Checks;
using test::TestState;

namespace {

TestState part_of_model(const Group& world, std::uint64_t seed, int expert_ranks) {
  TestState state(seed);
  const int rank = world.rank().value();
  state.add_model(
      [&](int layer, int expert) {
        return rank < expert_ranks && balanced_owner(3 + 2 * layer, expert_ranks, expert) == rank;
      },
      world.is_root());
  state.fill();
  return state;
}

TestState whole_model(std::uint64_t seed) {
  TestState state(seed);
  state.add_model([](int, int) { return true; }, false);
  return state;
}

// The message of the CollectiveError that a save throws on this rank, or "".
std::string save_error(const Group& world, const fs::path& folder, std::int64_t step, TestState& state) {
  try {
    save_checkpoint(world, folder, test::run_state(step), state.tensors(), 0);
  } catch (const CollectiveError& error) {
    return error.what();
  }
  return "";
}

void expect_same_failure(Checks& checks, const Group& world, const std::string& message, const std::string& told) {
  checks.expect(message.find(told) != std::string::npos, "\"{}\" does not tell \"{}\"", message, told);
  for (const std::string& other : world.gather(message)) {
    checks.expect(other == message, "ranks throw \"{}\" and \"{}\"", message, other);
  }
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

void expect_loads(Checks& checks, const fs::path& folder, std::uint64_t seed) {
  TestState loaded = whole_model(seed);
  load_tensors(folder, loaded.tensors());
  checks.expect(loaded.first_difference().empty(), "{} was not loaded as saved", loaded.first_difference());
}

void saves_on_all_loads_on_each(Checks& checks, const Group& world, const fs::path& folder) {
  // Once with experts on every rank, once with experts on the first two only.
  for (const int expert_ranks : {world.size(), std::min(world.size(), 2)}) {
    const std::int64_t step = 10 + expert_ranks;
    TestState mine = part_of_model(world, static_cast<std::uint64_t>(step), expert_ranks);
    const fs::path saved = save_checkpoint(world, folder, test::run_state(step), mine.tensors(), 0);
    world.barrier();
    expect_loads(checks, saved, static_cast<std::uint64_t>(step));
    std::set<std::string> wanted = {"index.h5", "manifest.json", "replicated-00000-of-00001.h5"};
    for (int i = 0; i < expert_ranks; ++i) wanted.insert(fmt::format("experts-{:05}-of-{:05}.h5", i, expert_ranks));
    checks.expect(names_in(saved) == wanted, "{} holds other files than expected", saved.string());
    checks.expect(read_checkpoint_info(saved).ranks == world.size(), "the manifest has another number of ranks");
    world.barrier();
  }
}

void a_full_disk_is_everyones(Checks& checks, const Group& world, const fs::path& folder) {
  TestState good = part_of_model(world, 20, world.size());
  const fs::path old = save_checkpoint(world, folder, test::run_state(20), good.tensors(), 0);
  world.barrier();
  const std::set<std::string> before = names_in(folder);
  world.barrier();

  // The last rank may write no file beyond 2,000 bytes: HDF5 fails in the middle of its work.
  const int last = world.size() - 1;
  struct rlimit usual {};
  ::getrlimit(RLIMIT_FSIZE, &usual);
  std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit tight { 2000, usual.rlim_max };
  if (world.rank().value() == last) ::setrlimit(RLIMIT_FSIZE, &tight);
  TestState next = part_of_model(world, 21, world.size());
  const std::string message = save_error(world, folder, 21, next);
  ::setrlimit(RLIMIT_FSIZE, &usual);
  expect_same_failure(checks, world, message, fmt::format("rank {} on ", last));
  expect_same_failure(checks, world, message, "File too large");
  checks.expect(names_in(folder) == before, "the failed save left something in {}", folder.string());
  world.barrier();
  expect_loads(checks, old, 20);
  checks.expect(find_newest_checkpoint(folder)->path == old, "the newest checkpoint is another");
  world.barrier();

  // And with room again, the same processes save as if nothing had been.
  const std::string none = save_error(world, folder, 21, next);
  checks.expect(none.empty(), "saving with room again: {}", none);
  world.barrier();
  expect_loads(checks, folder / "step-00000021", 21);
}

void other_failures_are_everyones(Checks& checks, const Group& world, const fs::path& folder) {
  if (world.is_root()) std::ofstream(folder / "file") << "not a folder";
  world.barrier();
  TestState state = part_of_model(world, 1, world.size());
  expect_same_failure(checks, world, save_error(world, folder / "file", 1, state), "file");

  // Nobody writes what each says that another does.
  TestState orphan(1);
  orphan.add("embed_tokens.weight", {}, {3}, world.is_root());
  orphan.add("norm.weight", {}, {3}, false);
  expect_same_failure(checks, world, save_error(world, folder, 1, orphan),
                      "/norm/weight of rank 0 was written by no rank");

  if (world.size() == 1) return;
  // Two ranks write the same expert; ranks disagree about the step.
  TestState twice(1);
  twice.add("layers.0.experts.0.w_up", {0, 0}, {3});
  expect_same_failure(checks, world, save_error(world, folder, 1, twice),
                      "/layers/0/experts/0/w_up was written by two ranks");
  const std::string apart = save_error(world, folder, world.is_root() ? 1 : 2, state);
  expect_same_failure(checks, world, apart, "step-00000002");
  checks.expect(!fs::exists(folder / "step-00000001"), "a save that failed left its folder");
}

void damage_is_found_by_one_and_told_by_all(Checks& checks, const Group& world, const fs::path& folder) {
  fs::path newest;
  for (const std::int64_t step : {30, 31}) {
    TestState state = part_of_model(world, static_cast<std::uint64_t>(step), world.size());
    newest = save_checkpoint(world, folder, test::run_state(step), state.tensors(), 0);
  }
  checks.expect(find_newest_checkpoint(folder)->path == newest, "the newest checkpoint was not found");
  if (world.is_root()) {
    const fs::path file = newest / fmt::format("experts-{:05}-of-{:05}.h5", world.size() - 1, world.size());
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(-1, std::ios::end);
    const char last = static_cast<char>(stream.get());
    stream.seekp(-1, std::ios::end);
    stream.put(static_cast<char>(last ^ 1));
  }
  world.barrier();
  // One rank finds the damage, though it may want nothing of that file, and it is everyone's.
  TestState nothing(31);
  nothing.add("embed_tokens.weight", {}, {13, 5});
  std::string message;
  try {
    load_checkpoint(world, newest, nothing.tensors());
  } catch (const CollectiveError& error) {
    message = error.what();
  }
  expect_same_failure(checks, world, message, "XXH3-128");
  load_checkpoint(world, find_newest_checkpoint(folder, nullptr, 31)->path, nothing.tensors());
  checks.expect(checkpoint::audit_checkpoint(newest).faults.size() == 1,
                "verify finds another number of damaged files than one");
}

}  // namespace

int main() {
  Environment environment;
  const Group& world = environment.world();
  Checks checks(world);
  const fs::path folder = world.broadcast(
      world.is_root() ? test::make_temporary_folder(fs::temp_directory_path()).string() : std::string(), Rank(0));
  saves_on_all_loads_on_each(checks, world, folder);
  a_full_disk_is_everyones(checks, world, folder);
  other_failures_are_everyones(checks, world, folder);
  damage_is_found_by_one_and_told_by_all(checks, world, folder);
  world.barrier();
  if (world.is_root()) fs::remove_all(folder);
  return checks.finish();
}
