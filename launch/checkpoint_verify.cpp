// switchyard checkpoint verify: is every byte the one that was written?
#include "comm/base/ids.h"
#include "comm/base/log.h"
#include "launch/checkpoint.h"
#include "trainer/checkpoint/audit.h"
#include "trainer/checkpoint/browse.h"
#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/names.h"

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using checkpoint::Audit;
using checkpoint::AuditFault;
using checkpoint::TensorRecord;

struct Arguments {
  std::vector<std::string> paths;
  bool json = false;
};

std::string plural(std::int64_t count, const char* one) {
  return fmt::format("{} {}{}", count, one, count == 1 ? "" : "s");
}

nlohmann::ordered_json to_json(const TensorRecord& tensor) {
  nlohmann::ordered_json object = {{"name", tensor.name}, {"state", checkpoint::state_name(tensor.kind)}};
  if (tensor.owner.layer >= 0) object["layer"] = tensor.owner.layer;
  if (!tensor.owner.replicated()) object["expert"] = tensor.owner.expert;
  return object;
}

nlohmann::ordered_json to_json(const fs::path& path, const Audit& audit) {
  nlohmann::ordered_json object = {{"path", path.string()}, {"sound", audit.faults.empty()}};
  if (audit.manifest) {
    object["step"] = audit.manifest->state.step;
    object["files"] = audit.manifest->files.size();
    object["bytes"] = audit.bytes;
  }
  object["damaged"] = nlohmann::ordered_json::array();
  for (const AuditFault& fault : audit.faults) {
    nlohmann::ordered_json tensors = nlohmann::ordered_json::array();
    for (const TensorRecord& tensor : fault.tensors) tensors.push_back(to_json(tensor));
    object["damaged"].push_back({{"file", fault.file}, {"problem", fault.what}, {"tensors", tensors}});
  }
  object["unknown_files"] = audit.strangers;
  return object;
}

void print_text(const fs::path& path, const Audit& audit) {
  const std::string step = path.filename().string();
  for (const AuditFault& fault : audit.faults) {
    std::string line = fmt::format("{}/{}: {}", step, fault.file, fault.what);
    if (!fault.tensors.empty()) line += "; damaged: " + list_damaged(fault.tensors);
    fmt::print("{}\n", line);
  }
  if (!audit.manifest) return;
  const std::int64_t files = isize(audit.manifest->files.size());
  if (audit.faults.empty()) {
    fmt::print("{}: {}, {}, all as written\n", step, plural(files, "file"), checkpoint::human_bytes(audit.bytes));
  } else {
    fmt::print("{}: {} of {} damaged\n", step, audit.faults.size(), plural(files, "file"));
  }
}

int run_verify(const Arguments& arguments) {
  std::vector<fs::path> folders;
  for (const std::string& path : arguments.paths) {
    const std::vector<fs::path> found = step_folders_of(path);
    folders.insert(folders.end(), found.begin(), found.end());
  }
  bool sound = true;
  nlohmann::ordered_json object = {{"sound", true}, {"checkpoints", nlohmann::ordered_json::array()}};
  for (const fs::path& folder : folders) {
    const Audit audit = checkpoint::audit_checkpoint(folder);
    sound = sound && audit.faults.empty();
    if (arguments.json) {
      object["checkpoints"].push_back(to_json(folder, audit));
    } else {
      print_text(folder, audit);
    }
    for (const std::string& stranger : audit.strangers) {
      log_warning("{}: is no part of the checkpoint; nothing reads it", (folder / stranger).string());
    }
  }
  object["sound"] = sound;
  if (arguments.json) fmt::print("{}\n", object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  return sound ? 0 : static_cast<int>(ErrorKind::Data);
}

}  // namespace

void add_checkpoint_verify(const Command& parent, Run& run) {
  const Command command = parent.add_command("verify", "Check every byte, and name what is damaged (code 65)");
  auto arguments = std::make_shared<Arguments>();
  command.add_option("PATH", arguments->paths, "Step folders, or runs' folders: then all of a run's checkpoints",
                     {.required = true, .type = ""});
  command.add_flag("--json", arguments->json, "Print one JSON object");
  command.does(run, [arguments] { return run_verify(*arguments); });
}

}  // namespace switchyard
