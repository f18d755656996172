#include "trainer/loop/restore.h"

#include <algorithm>
#include <vector>

#include "comm/group/agree.h"
#include "data/tokenizer/tokenizer_file.h"
#include "trainer/config/load.h"

namespace switchyard {

namespace fs = std::filesystem;

CheckpointInfo locate_checkpoint(const fs::path& path) {
  if (!fs::is_directory(path)) {
    fail(ErrorKind::Usage, "{} is no folder: --checkpoint takes a run's folder or one of its step folders",
         path.string());
  }
  if (fs::exists(path / "manifest.json")) return read_checkpoint_info(fs::absolute(path));
  const fs::path checkpoints = fs::is_directory(path / "checkpoints") ? path / "checkpoints" : path;
  std::vector<std::string> skipped;
  if (const auto newest = find_newest_checkpoint(fs::absolute(checkpoints), &skipped)) return *newest;
  std::string reasons;
  for (const std::string& reason : skipped) reasons += "; " + reason;
  fail(ErrorKind::Usage, "{} holds no complete checkpoint{}", path.string(), reasons);
}

Config config_of(const CheckpointInfo& checkpoint, std::span<const std::string> sets, int ranks) {
  const std::string name = (checkpoint.path / "manifest.json").string() + " (its config)";
  return config_or_throw(parse_config(checkpoint.state.config_toml, name, sets, ranks));
}

fs::path tokenizer_of(const CheckpointInfo& checkpoint, const Config& config) {
  const fs::path kept = checkpoint.path.parent_path().parent_path() / "tokenizer";
  return fs::exists(kept / kTokenizerName) ? kept : fs::path(config.data.tokenizer);
}

void keep_tokenizer(const fs::path& from, const fs::path& run_folder) {
  const fs::path folder = fs::is_directory(from) ? from : from.parent_path();
  const fs::path kept = run_folder / "tokenizer";
  fs::create_directories(kept);
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("tokenizer.")) {
      fs::copy_file(entry.path(), kept / name, fs::copy_options::overwrite_existing);
    }
  }
}

void load_state(Engine& engine, const Group& world, const CheckpointInfo& checkpoint, LoadWhat what) {
  std::vector<StateTensor> tensors = engine.state();
  if (what == LoadWhat::Weights) {
    std::erase_if(tensors, [](const StateTensor& tensor) { return tensor.kind != StateKind::Weight; });
  }
  collectively(world, "loading the checkpoint", [&] { load_tensors(checkpoint.path, tensors); });
  engine.touch();
  const std::uint64_t digest = engine.digest();
  if (digest != checkpoint.state.digest) {
    throw CollectiveError(ErrorKind::Data, fmt::format("{} was loaded, but its parameters' digest is {:016x} and not {:016x}",
                                                       checkpoint.path.string(), digest, checkpoint.state.digest));
  }
}

}  // namespace switchyard
