// switchyard checkpoint ls: which checkpoints there are, and in what state.
#include "launch/checkpoint.h"
#include "launch/table.h"
#include "trainer/checkpoint/audit.h"
#include "trainer/checkpoint/browse.h"
#include "trainer/checkpoint/files.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::vector<std::string> paths;
  bool verify = false;
  bool json = false;
};

enum class Health { Complete, Sound, Damaged };

const char* name_of(Health health) {
  return health == Health::Complete ? "complete" : health == Health::Sound ? "sound" : "damaged";
}

struct Line {
  fs::path run;
  StepListing checkpoint;
  Health health = Health::Complete;
  double age_s = -1;  // since the manifest was written; negative: not known
};

double age_of(const fs::path& step_folder) {
  std::error_code error;
  const auto written = fs::last_write_time(step_folder / "manifest.json", error);
  if (error) return -1;
  return std::max(0.0, std::chrono::duration<double>(fs::file_time_type::clock::now() - written).count());
}

Line line_of(const fs::path& run, StepListing checkpoint, bool verify) {
  Line line{run, std::move(checkpoint), Health::Complete, 0};
  line.age_s = age_of(line.checkpoint.path);
  if (line.checkpoint.problem.empty() && verify) {
    const checkpoint::Audit audit = checkpoint::audit_checkpoint(line.checkpoint.path);
    if (!audit.faults.empty()) {
      line.checkpoint.problem = fmt::format("{}: {}", audit.faults.front().file, audit.faults.front().what);
    }
    line.health = Health::Sound;
  }
  if (!line.checkpoint.problem.empty()) line.health = Health::Damaged;
  return line;
}

std::string age_text(double seconds) {
  if (seconds < 0) return "?";
  if (seconds < 120) return fmt::format("{:.0f} s", seconds);
  if (seconds < 2 * 3600) return fmt::format("{:.0f} min", seconds / 60);
  if (seconds < 2 * 86400) return fmt::format("{:.0f} h", seconds / 3600);
  return fmt::format("{:.0f} d", seconds / 86400);
}

nlohmann::ordered_json to_json(const Line& line) {
  nlohmann::ordered_json object = {{"run", line.run.string()}, {"path", line.checkpoint.path.string()}};
  if (const auto& info = line.checkpoint.info) {
    object["run_id"] = info->state.run_id;
    object["step"] = info->state.step;
    object["bytes"] = info->bytes;
    object["ranks"] = info->ranks;
    object["files"] = line.checkpoint.files;
    object["digest"] = fmt::format("{:016x}", info->state.digest);
  }
  if (line.age_s >= 0) object["age_s"] = line.age_s;
  object["health"] = name_of(line.health);
  if (!line.checkpoint.problem.empty()) object["problem"] = line.checkpoint.problem;
  return object;
}

void print_table(const std::vector<Line>& lines, const std::vector<fs::path>& leavings) {
  Table table({"run", "checkpoint", "size", "ranks", "files", "age", "health"});
  for (const Line& line : lines) {
    const auto& info = line.checkpoint.info;
    const std::string problem = line.checkpoint.problem.empty() ? "" : ": " + line.checkpoint.problem;
    table.add({line.run.string(), line.checkpoint.path.filename().string(),
               info ? checkpoint::human_bytes(info->bytes) : "?", info ? std::to_string(info->ranks) : "?",
               info ? std::to_string(line.checkpoint.files) : "?", age_text(line.age_s),
               name_of(line.health) + problem});
  }
  if (!lines.empty()) fmt::print("{}", table.text());
  for (const fs::path& leaving : leavings) {
    fmt::print("{}: left by a save that is going on or was cut short; the run's next save clears it\n",
               leaving.string());
  }
}

int run_ls(Arguments arguments) {
  if (arguments.paths.empty()) arguments.paths.push_back(fs::is_directory("runs") ? "runs" : ".");
  std::vector<Line> lines;
  std::vector<fs::path> leavings;
  for (const std::string& path : arguments.paths) {
    const std::vector<RunListing> runs = list_runs(path);
    if (runs.empty()) {
      fail(ErrorKind::Usage, "{} holds no checkpoint, nor does a run in it: give a run's folder or a folder of runs",
           path);
    }
    for (const RunListing& run : runs) {
      for (const StepListing& checkpoint : run.checkpoints) {
        lines.push_back(line_of(run.run, checkpoint, arguments.verify));
      }
      leavings.insert(leavings.end(), run.leavings.begin(), run.leavings.end());
    }
  }
  if (arguments.json) {
    nlohmann::ordered_json object = {{"checkpoints", nlohmann::ordered_json::array()},
                                     {"leavings", nlohmann::ordered_json::array()}};
    for (const Line& line : lines) object["checkpoints"].push_back(to_json(line));
    for (const fs::path& leaving : leavings) object["leavings"].push_back(leaving.string());
    fmt::print("{}\n", object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    print_table(lines, leavings);
  }
  const bool damaged =
      std::any_of(lines.begin(), lines.end(), [](const Line& l) { return l.health == Health::Damaged; });
  return arguments.verify && damaged ? static_cast<int>(ErrorKind::Data) : 0;
}

}  // namespace

void add_checkpoint_ls(const Command& parent, Run& run) {
  const Command command =
      parent.add_command("ls", "List the checkpoints of runs, newest first, with their size and state");
  auto arguments = std::make_shared<Arguments>();
  command.add_option("PATH", arguments->paths, "Runs' folders, or folders of runs (default: runs, or here)",
                     {.type = ""});
  command.add_flag("--verify", arguments->verify,
                   "Read and check all bytes, not manifests and sizes alone (code 65 where one is damaged)");
  command.add_flag("--json", arguments->json, "Print one JSON object");
  command.does(run, [arguments] { return run_ls(*arguments); });
}

}  // namespace switchyard
