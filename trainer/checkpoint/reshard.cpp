#include "trainer/checkpoint/reshard.h"

#include "comm/base/ids.h"
#include "comm/group/fault_point.h"
#include "trainer/checkpoint/commit.h"
#include "trainer/checkpoint/find.h"
#include "trainer/checkpoint/index.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/shard_writer.h"
#include "trainer/checkpoint/tensor_stream.h"

#include <algorithm>
#include <deque>
#include <future>
#include <map>
#include <string_view>
#include <utility>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using namespace checkpoint;

void check_destination(const fs::path& source, const fs::path& destination, std::int64_t step) {
  const fs::file_status status = fs::symlink_status(destination);
  const bool free = status.type() == fs::file_type::not_found ||
                    (status.type() == fs::file_type::directory && fs::is_empty(destination));
  if (!free) fail(ErrorKind::Usage, "{} is there already, and is not written over", destination.string());
  const auto named = step_of_folder_name(destination.filename().string());
  if (named && *named != step) {
    fail(ErrorKind::Usage, "{} is the name of step {}, and {} holds step {}: no run would find it there",
         destination.string(), *named, source.string(), step);
  }
  const fs::path inside = fs::weakly_canonical(destination).lexically_relative(fs::canonical(source));
  if (!inside.empty() && *inside.begin() != "..") {
    fail(ErrorKind::Usage, "{} would lie inside {}", destination.string(), source.string());
  }
}

class Copier {
 public:
  Copier(const fs::path& source, const fs::path& folder, const RunState& state, std::int64_t total,
         const ReshardProgress& progress)
      : source_(source), folder_(folder), state_(state), total_(total), progress_(progress) {}

  void copy(const PlannedFile& file, Manifest& into) {
    std::map<std::string_view, const PlannedTensor*> planned;  // by path
    std::vector<TensorRecord> targets;
    for (const PlannedTensor& tensor : file.tensors) {
      planned[tensor.target.path] = &tensor;
      targets.push_back(tensor.target);
    }
    ShardWriter writer(folder_, file.name, state_, std::move(targets));
    for (const TensorRecord& target : writer.tensors()) {
      for (const TensorRecord* source : planned.at(target.path)->sources) {
        stream_record(source_, *source, [&](const void* data, std::int64_t bytes) {
          writer.write(data, bytes);
          done_ += bytes;
          progress_(done_, total_);
        });
      }
    }
    for (const TensorRecord& written : writer.tensors()) {
      const auto& sources = planned.at(written.path)->sources;
      require(sources.size() > 1 || sources.front()->hash == written.hash, "{} was changed on its way", written.path);
      into.tensors.push_back(written);
    }
    // The disk brings several files home at once while the next ones are written.
    if (isize(finishing_.size()) == most_finishing) finish_oldest(into);
    finishing_.push_back(std::async(
        std::launch::async, [moved = std::move(writer), rank = file.rank]() mutable { return moved.finish(rank); }));
  }

  void finish(Manifest& into) {
    while (!finishing_.empty()) finish_oldest(into);
  }

 private:
  static constexpr std::int64_t most_finishing = 8;

  void finish_oldest(Manifest& into) {
    into.files.push_back(finishing_.front().get());
    finishing_.pop_front();
  }

  const fs::path& source_;
  const fs::path& folder_;
  const RunState& state_;
  std::int64_t total_;
  std::int64_t done_ = 0;
  const ReshardProgress& progress_;
  std::deque<std::future<FileRecord>> finishing_;  // waits for all of them where one has failed
};

// Room for the tensors, HDF5's structures and the index, rounded up.
std::int64_t room_for(const ReshardPlan& plan) {
  std::int64_t bytes = 1 << 20;
  for (const PlannedFile& file : plan.files) {
    std::vector<TensorRecord> targets;
    for (const PlannedTensor& tensor : file.tensors) targets.push_back(tensor.target);
    bytes += shard_bytes(targets);
  }
  return bytes;
}

}  // namespace

Resharded reshard_checkpoint(const fs::path& step_folder, const fs::path& named_destination,
                             const ReshardOptions& options, const ReshardProgress& progress) {
  const Manifest source = read_manifest(step_folder);
  const fs::path normal = fs::absolute(named_destination).lexically_normal();
  const fs::path destination = normal.has_filename() ? normal : normal.parent_path();  // no slash at the end
  check_destination(step_folder, destination, source.state.step);
  check_complete(step_folder, source);
  const ReshardPlan plan = plan_reshard(source, options);
  check_plan(plan, source, options);

  TemporaryFolder folder(destination, source.state.run_id);
  require_free_space(folder.path(), room_for(plan));
  Manifest manifest{source.state, plan.ranks, {}, {}};
  Copier copier(step_folder, folder.path(), source.state, plan.bytes(), progress);
  const auto passed = [&](const char* point) { pass_fault_point(source.state.step, point); };
  for (const PlannedFile& file : plan.files) {
    copier.copy(file, manifest);
    passed("reshard: file written");
  }
  copier.finish(manifest);
  manifest.files.push_back(write_index(folder.path(), manifest));
  const std::string text = to_text(manifest);
  parse_manifest(text, (folder.path() / manifest_name).string());  // what could not be read must not be there
  replace_file(folder.path() / manifest_name, text);
  passed("reshard: manifest written");
  folder.publish(passed);

  Resharded result{plan.ranks, isize(manifest.files.size()), 0};
  for (const FileRecord& file : manifest.files) result.bytes += file.bytes;
  return result;
}

}  // namespace switchyard
