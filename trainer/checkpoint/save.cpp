// A checkpoint in four phases, each of which all ranks leave together: prepare (rank 0: folder, room), write (each rank
// its file), gather, commit (rank 0: index, manifest, rename). The temporary folder goes with the rank that made it.
#include "comm/base/log.h"
#include "comm/group/agree.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/commit.h"
#include "trainer/checkpoint/index.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/shard_writer.h"

#include <memory>
#include <set>
#include <vector>

namespace switchyard {
namespace {

using namespace checkpoint;
using Tensors = std::vector<const StateTensor*>;

void check_tensors(std::span<const StateTensor> tensors) {
  std::set<std::string> paths;
  for (const StateTensor& tensor : tensors) {
    const std::string what = describe(tensor.name, tensor.kind, tensor.owner);
    require(paths.insert(dataset_path(tensor.name, tensor.kind)).second, "{} is to be saved twice", what);
    require(tensor.data != nullptr || !tensor.write, "save_checkpoint: {} has no data", what);
    require(tensor.shape.rank() >= 1 && tensor.shape.size() > 0, "save_checkpoint: {} has no elements", what);
  }
}

// A file of this rank among those of its kind, numbered over the ranks that have one.
struct Shard {
  std::string name;  // empty: this rank writes none
  Tensors tensors;
};

Shard make_shard(const Group& world, const char* kind, Tensors tensors) {
  std::vector<std::int64_t> writes(usize(world.size()), 0);
  writes[usize(world.rank().value())] = tensors.empty() ? 0 : 1;
  world.sum(std::span<std::int64_t>(writes));
  int number = 0;
  int count = 0;
  for (int rank = 0; rank < world.size(); ++rank) {
    if (rank == world.rank().value()) number = count;
    count += static_cast<int>(writes[usize(rank)]);
  }
  return {tensors.empty() ? std::string() : shard_file_name(kind, number, count), std::move(tensors)};
}

std::vector<Shard> plan_shards(const Group& world, std::span<const StateTensor> tensors) {
  Tensors replicated;
  Tensors experts;
  for (const StateTensor& tensor : tensors) {
    if (tensor.write) (tensor.owner.replicated() ? replicated : experts).push_back(&tensor);
  }
  std::vector<Shard> shards;
  shards.push_back(make_shard(world, "replicated", std::move(replicated)));
  shards.push_back(make_shard(world, "experts", std::move(experts)));
  return shards;
}

// What this rank holds and leaves to another: a tensor that nobody writes must not go unnoticed.
std::string list_left_to_others(std::span<const StateTensor> tensors) {
  std::string list;
  for (const StateTensor& tensor : tensors) {
    if (!tensor.write) list += dataset_path(tensor.name, tensor.kind) + '\n';
  }
  return list;
}

void check_written_once(const Manifest& manifest, const std::vector<std::string>& left_to_others) {
  std::set<std::string_view> written;
  for (const TensorRecord& tensor : manifest.tensors) {
    require(written.insert(tensor.path).second, "{} was written by two ranks", tensor.path);
  }
  for (std::size_t rank = 0; rank < left_to_others.size(); ++rank) {
    std::string_view rest = left_to_others[rank];
    for (; !rest.empty(); rest.remove_prefix(rest.find('\n') + 1)) {
      const std::string_view path = rest.substr(0, rest.find('\n'));
      require(written.contains(path), "{} of rank {} was written by no rank", path, rank);
    }
  }
}

}  // namespace

std::filesystem::path save_checkpoint(const Group& world, const std::filesystem::path& checkpoints,
                                      const RunState& state, std::span<const StateTensor> tensors, std::int64_t keep) {
  const int rank = world.rank().value();
  require_same(
      world, "the checkpoint to write",
      fmt::format("{} of run {} at {} with config {}", step_folder_name(state.step), state.run_id, checkpoints.string(),
                  to_hex(hash64(state.config_toml.data(), isize(state.config_toml.size())))));
  collectively(world, "checking what to save", [&] { check_tensors(tensors); });

  const std::vector<Shard> shards = plan_shards(world, tensors);
  std::int64_t needed = 0;
  for (const Shard& shard : shards) needed += shard_bytes(shard.tensors);
  world.sum(std::span<std::int64_t>(&needed, 1));

  const std::filesystem::path folder = temporary_folder(checkpoints, state.step, state.run_id);
  std::unique_ptr<TemporaryFolder> owner;
  collectively(world, "preparing a checkpoint", [&] {
    if (!world.is_root()) return;
    owner = std::make_unique<TemporaryFolder>(checkpoints, state.step, state.run_id);
    require_free_space(folder, needed);
  });

  std::vector<FileRecord> files;
  std::vector<TensorRecord> records;
  collectively(world, "writing a checkpoint", [&] {
    check_temporary_folder(folder);
    for (const Shard& shard : shards) {
      if (shard.name.empty()) continue;
      ShardWriter writer(folder, shard.name, state, shard_bytes(shard.tensors));
      for (const StateTensor* tensor : shard.tensors) writer.add(*tensor);
      files.push_back(writer.finish(rank));
      records.insert(records.end(), writer.tensors().begin(), writer.tensors().end());
    }
  });
  const std::vector<std::string> parts = world.gather(part_to_text(files, records));
  const std::vector<std::string> left_to_others = world.gather(list_left_to_others(tensors));

  const std::filesystem::path final_path = checkpoints / step_folder_name(state.step);
  collectively(world, "committing a checkpoint", [&] {
    if (!world.is_root()) return;
    Manifest manifest{state, world.size(), {}, {}};
    for (std::size_t i = 0; i < parts.size(); ++i)
      parse_part(parts[i], fmt::format("the part of rank {}", i), manifest);
    check_written_once(manifest, left_to_others);
    manifest.files.push_back(write_index(folder, manifest));
    const std::string text = to_text(manifest);
    parse_manifest(text, (folder / manifest_name).string());  // what could not be read must not be committed
    replace_file(folder / manifest_name, text);
    owner->publish();
    try {
      replace_file(checkpoints / latest_name, step_folder_name(state.step) + "\n");
      retire_old(checkpoints, keep, final_path);
    } catch (const Error& error) {
      log_warning("{} was saved, but: {}", final_path.string(), error.what());
    }
  });
  return final_path;
}

}  // namespace switchyard
