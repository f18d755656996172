#include "trainer/loop/restore.h"

#include "comm/group/agree.h"
#include "data/tokenizer/tokenizer_file.h"
#include "trainer/checkpoint/browse.h"
#include "trainer/config/compare.h"
#include "trainer/config/load.h"

#include <array>
#include <functional>
#include <limits>
#include <optional>
#include <sstream>

namespace switchyard {

namespace fs = std::filesystem;

CheckpointInfo locate_checkpoint(const fs::path& path) {
  std::vector<std::string> skipped;
  const fs::path folder = one_step_folder(path, &skipped);
  if (!skipped.empty()) {
    // A path never falls back: whoever named it did not mean an older one.
    fail(ErrorKind::Data, "{}: its newest checkpoint is damaged; to use {} all the same, name that folder. {}",
         path.string(), folder.filename().string(), skipped.front());
  }
  return read_checkpoint_info(fs::absolute(folder));
}

namespace {

// Rank 0 finds it, since a run may be saving meanwhile; all read its manifest. An empty path: nothing was found.
std::optional<CheckpointInfo> look_together(const Group& world, const std::function<fs::path()>& find) {
  std::string found;
  collectively(world, "looking for the checkpoint", [&] {
    if (world.is_root()) found = find().string();
  });
  found = world.broadcast(found, Rank(0));
  std::optional<CheckpointInfo> info;
  collectively(world, "reading the checkpoint's manifest", [&] {
    if (!found.empty()) info = read_checkpoint_info(found);
  });
  return info;
}

}  // namespace

CheckpointInfo locate_checkpoint(const Group& world, const fs::path& path) {
  return *look_together(world, [&] { return locate_checkpoint(path).path; });
}

std::optional<CheckpointInfo> newest_checkpoint(const Group& world, const fs::path& checkpoints,
                                                std::optional<std::int64_t> before,
                                                std::vector<std::string>& passed_over) {
  std::string reasons;  // a line each
  auto newest = look_together(world, [&] {
    std::vector<std::string> skipped;
    const auto found =
        find_newest_checkpoint(checkpoints, &skipped, before.value_or(std::numeric_limits<std::int64_t>::max()));
    for (const std::string& reason : skipped) reasons += reason + '\n';
    return found ? fs::absolute(found->path) : fs::path();
  });
  // What rank 0 has passed over decides, on all ranks, whether a run may begin anew.
  std::istringstream lines(world.broadcast(reasons, Rank(0)));
  for (std::string reason; std::getline(lines, reason);) passed_over.push_back(reason);
  return newest;
}

Config config_of(const CheckpointInfo& checkpoint) {
  const std::string name = (checkpoint.path / "manifest.json").string() + " (its config)";
  const std::array<std::string, 2> any_layout = {"parallel.expert=0", "moe.replicas=0"};
  return config_or_throw(
      parse_config(checkpoint.state.config_toml, name, any_layout, /*ranks=*/0, DeviceOf::AnotherRun));
}

Config config_here(const CheckpointInfo& checkpoint) {
  Config config = config_of(checkpoint);
  try {
    check_device(config.device);
  } catch (const Error&) {
    config.device = "cpu";
    config.train.dtype = DType::F32;
  }
  return config;
}

std::vector<std::string> check_continues(const CheckpointInfo& checkpoint, const Config& config) {
  std::string refused;
  std::vector<std::string> noted;
  for (const ConfigChange& change : config_changes(config_of(checkpoint), config)) {
    const std::string text = fmt::format("{} was {}, is {}", change.key, change.was, change.is);
    if (change.kind == ChangeKind::Refused) refused += "\n  " + text;
    if (change.kind == ChangeKind::Noted) noted.push_back(text);
  }
  if (!refused.empty()) {
    fail(ErrorKind::Usage, "{} cannot go on with this config (another --out starts anew):{}", checkpoint.path.string(),
         refused);
  }
  return noted;
}

fs::path tokenizer_of(const CheckpointInfo& checkpoint, const Config& config) {
  const fs::path kept = checkpoint.path.parent_path().parent_path() / "tokenizer";
  return fs::exists(kept / kTokenizerName) ? kept : fs::path(config.data.tokenizer);
}

void keep_tokenizer(const fs::path& from, const fs::path& run_folder) {
  const fs::path folder = fs::is_directory(from) ? from : from.parent_path();
  const fs::path kept = run_folder / "tokenizer";
  fs::create_directories(kept);
  if (fs::equivalent(folder, kept)) return;
  for (const char* name : {kTokenizerName, kTokenizerModelName}) {
    if (fs::exists(folder / name)) fs::copy_file(folder / name, kept / name, fs::copy_options::overwrite_existing);
  }
}

void load_state(Engine& engine, const Group& world, const CheckpointInfo& checkpoint, LoadWhat what) {
  std::vector<StateTensor> tensors = engine.state();
  if (what == LoadWhat::Weights) {
    std::erase_if(tensors, [](const StateTensor& tensor) { return tensor.kind != StateKind::Weight; });
  }
  load_checkpoint(world, checkpoint.path, tensors);
  engine.touch();
  const std::uint64_t digest = engine.digest();
  if (digest != checkpoint.state.digest) {
    throw CollectiveError(ErrorKind::Data,
                          fmt::format("{} was loaded, but its parameters' digest is {:016x} and not {:016x}",
                                      checkpoint.path.string(), digest, checkpoint.state.digest));
  }
}

}  // namespace switchyard
