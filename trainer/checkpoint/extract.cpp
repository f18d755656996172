#include "trainer/checkpoint/extract.h"

#include "comm/base/ids.h"
#include "trainer/checkpoint/hdf5_file.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/reshard_plan.h"
#include "trainer/checkpoint/shard_writer.h"
#include "trainer/checkpoint/summary.h"
#include "trainer/checkpoint/tensor_stream.h"

#include <cerrno>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using namespace checkpoint;

// The expert's tensors, put together from pieces. Throws Error(Usage) where there is no such expert.
std::vector<PlannedTensor> tensors_of(const fs::path& step_folder, const Manifest& manifest, int layer, int expert,
                                      bool drop_optimizer) {
  const ReshardOptions one_by_one{ReshardOptions::By::ExpertsPerFile, 1, drop_optimizer};
  for (PlannedFile& file : plan_reshard(manifest, one_by_one).files) {
    if (file.tensors.front().target.owner == Owner{layer, expert}) return std::move(file.tensors);
  }
  std::string there;
  for (const auto& [number, experts] : summarise(manifest).experts) {
    there += fmt::format("{}layer {} has experts {} to {}", there.empty() ? "" : ", ", number, experts.front(),
                         experts.back());
  }
  fail(ErrorKind::Usage, "{} has no expert {} in layer {}: {}", step_folder.string(), expert, layer,
       there.empty() ? "its model has no mixture" : there);
}

// The file while it is being written; gone when this goes, unless it was published.
class TemporaryFile {
 public:
  explicit TemporaryFile(const fs::path& final_path)
      : final_path_(fs::absolute(final_path)),
        path_(final_path_.parent_path() / fmt::format("{}.tmp-{}", final_path_.filename().string(), ::getpid())) {
    if (fs::exists(fs::symlink_status(final_path_))) refuse();
  }
  ~TemporaryFile() {
    std::error_code error;
    if (!path_.empty()) fs::remove(path_, error);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const fs::path& path() const { return path_; }

  void publish() {
    if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, final_path_.c_str(), RENAME_NOREPLACE) != 0) {
      if (errno == EEXIST) refuse();
      if (errno != EINVAL && errno != ENOSYS) fail_errno(ErrorKind::Runtime, "cannot make", final_path_);
      rename_path(path_, final_path_);  // a file system without the flag
    }
    path_.clear();
    sync_folder(final_path_.parent_path());
  }

 private:
  [[noreturn]] void refuse() const {
    fail(ErrorKind::Usage, "{} is there already, and is not written over", final_path_.string());
  }

  fs::path final_path_;
  fs::path path_;
};

}  // namespace

Extracted extract_expert(const fs::path& step_folder, int layer, int expert, const fs::path& file,
                         bool drop_optimizer) {
  const Manifest manifest = read_manifest(step_folder);
  const std::vector<PlannedTensor> tensors = tensors_of(step_folder, manifest, layer, expert, drop_optimizer);
  TemporaryFile temporary(file);
  const fs::path& path = temporary.path();

  std::map<std::string, const PlannedTensor*> planned;
  std::vector<TensorRecord> targets;
  for (const PlannedTensor& tensor : tensors) {
    planned[tensor.target.path] = &tensor;
    targets.push_back(tensor.target);
  }
  ShardWriter writer(path.parent_path(), path.filename().string(), manifest.state, std::move(targets));
  for (const TensorRecord& target : writer.tensors()) {
    for (const TensorRecord* source : planned.at(target.path)->sources) {
      stream_record(step_folder, *source, [&](const void* data, std::int64_t bytes) { writer.write(data, bytes); });
    }
  }
  writer.finish(0);
  add_attributes(path, {{"layer", std::int64_t{layer}},
                        {"expert", std::int64_t{expert}},
                        {"dtype", "float32"},
                        {"source", fs::absolute(step_folder).lexically_normal().string()}});
  const std::int64_t bytes = [&] {
    const FileDescriptor written = open_plain_file(path);
    sync_file(written, path);
    return size_of_file(written, path);
  }();
  temporary.publish();
  return {isize(tensors.size()), bytes};
}

}  // namespace switchyard
