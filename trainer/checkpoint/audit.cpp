#include "trainer/checkpoint/audit.h"

#include "comm/base/ids.h"
#include "trainer/checkpoint/find.h"
#include "trainer/checkpoint/hdf5_gate.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/shard_reader.h"

#include <algorithm>
#include <map>
#include <set>
#include <system_error>

#include <fmt/ranges.h>

namespace switchyard::checkpoint {
namespace {

namespace fs = std::filesystem;
using Tensors = std::vector<const TensorRecord*>;

std::vector<TensorRecord> copies(const Tensors& tensors) {
  std::vector<TensorRecord> records;
  for (const TensorRecord* tensor : tensors) records.push_back(*tensor);
  return records;
}

std::map<std::string_view, Tensors> tensors_by_file(const Manifest& manifest) {
  std::map<std::string_view, Tensors> by_file;
  for (const TensorRecord& tensor : manifest.tensors) by_file[tensor.file].push_back(&tensor);
  return by_file;
}

// A file whose bytes are those that were written, and that other programs see otherwise than the manifest does.
AuditFault fault_of_its_view(const fs::path& folder, const Manifest& manifest, const FileRecord& file,
                             const Tensors& tensors) {
  AuditFault fault{file.name, "", {}};
  std::vector<ViewFault> views;
#pragma omp critical(audit_hdf5)
  views = file.name == index_name ? faults_of_index(folder / file.name, manifest.tensors)
                                  : faults_of_view(folder / file.name, tensors);
  if (views.empty()) return fault;
  const ViewFault& first = views.front();
  fault.what =
      fmt::format("the file is the one that was written, but HDF5 shows something else than the manifest: {}{}",
                  first.tensor == nullptr ? "" : first.tensor->path + " ", first.what);
  for (const ViewFault& view : views) {
    if (view.tensor != nullptr) fault.tensors.push_back(*view.tensor);
  }
  return fault;
}

AuditFault check_file(const fs::path& folder, const Manifest& manifest, const FileRecord& file,
                      const Tensors& tensors) try {
  const FileFault fault = fault_of_file(folder, file, tensors);
  if (fault.what.empty()) return fault_of_its_view(folder, manifest, file, tensors);
  return {file.name, fault.what, copies(fault.tensors)};
} catch (const Error& error) {  // cannot be opened or read at all
  return {file.name, error.what(), copies(tensors)};
}

std::vector<std::string> find_strangers(const fs::path& folder, const Manifest& manifest) {
  std::set<std::string> known = {manifest_name, marker_name, pin_name};
  for (const FileRecord& file : manifest.files) known.insert(file.name);
  std::vector<std::string> strangers;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!known.contains(name)) strangers.push_back(name);
  }
  std::sort(strangers.begin(), strangers.end());
  return strangers;
}

}  // namespace

Audit audit_checkpoint(const fs::path& step_folder, const std::function<void(std::int64_t)>& checked) {
  Audit audit;
  try {
    audit.manifest = read_manifest(step_folder);
  } catch (const Error& error) {
    audit.faults.push_back({manifest_name, error.what(), {}});
    return audit;
  }
  const Manifest& manifest = *audit.manifest;
  const auto step = step_of_folder_name(step_folder.filename().string());
  if (step && *step != manifest.state.step) {
    audit.faults.push_back({manifest_name, fmt::format("is that of step {}", manifest.state.step), {}});
  }

  auto by_file = tensors_by_file(manifest);
  for (const FileRecord& file : manifest.files) by_file[file.name];  // every key is there before threads look
  std::vector<AuditFault> faults(manifest.files.size());
#pragma omp parallel for schedule(dynamic)
  for (std::size_t i = 0; i < manifest.files.size(); ++i) {
    const FileRecord& file = manifest.files[i];
    faults[i] = check_file(step_folder, manifest, file, by_file.find(file.name)->second);
#pragma omp critical(audit_checked)
    checked(file.bytes);
  }
  for (std::size_t i = 0; i < manifest.files.size(); ++i) {
    audit.bytes += manifest.files[i].bytes;
    if (!faults[i].what.empty()) audit.faults.push_back(std::move(faults[i]));
  }
  audit.strangers = find_strangers(step_folder, manifest);
  return audit;
}

std::string list_damaged(const std::vector<TensorRecord>& tensors) {
  std::map<int, std::set<int>> experts;
  std::set<std::string> others;
  for (const TensorRecord& tensor : tensors) {
    if (tensor.owner.replicated()) {
      others.insert(describe(tensor.name, tensor.kind, tensor.owner));
    } else {
      experts[tensor.owner.layer].insert(tensor.owner.expert);
    }
  }
  std::vector<std::string> parts;
  for (const auto& [layer, numbers] : experts) {
    parts.push_back(
        fmt::format("layer {} expert{} {}", layer, numbers.size() == 1 ? "" : "s", fmt::join(numbers, ", ")));
  }
  parts.insert(parts.end(), others.begin(), others.end());
  return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace switchyard::checkpoint
