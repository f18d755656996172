// switchyard checkpoint show: what is in one.
#include "comm/base/ids.h"
#include "comm/base/log.h"
#include "launch/checkpoint.h"
#include "launch/table.h"
#include "trainer/checkpoint/browse.h"
#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/find.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/summary.h"
#include "trainer/loop/restore.h"
#include "trainer/model/catalogue.h"
#include "trainer/monitor/progress.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using namespace checkpoint;
using nlohmann::ordered_json;

struct Arguments {
  std::string path;
  bool tensors = false;
  bool no_norms = false;
  bool json = false;
};

struct Shown {
  fs::path path;
  Manifest manifest;
  Summary summary;
  std::map<ExpertKey, double> norms;
  std::optional<std::int64_t> active;  // parameters that a token uses; nothing where the config is of another program
};

// What a token uses is in the config; a checkpoint whose config this program cannot read can be looked at all the same.
std::optional<std::int64_t> active_parameters(const fs::path& path, const Manifest& manifest) try {
  return count_parameters(config_of(info_of(path, manifest))).active;
} catch (const Error& error) {
  log_warning("{}", error.what());
  return std::nullopt;
}

// "0-3, 7": runs of consecutive numbers, ascending.
std::string ranges(const std::vector<int>& numbers) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t end = i + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
    parts.push_back(end - i == 1 ? std::to_string(numbers[i]) : fmt::format("{}-{}", numbers[i], numbers[end - 1]));
    i = end;
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

// "layers 0-1: experts 4-7"; layers with the same experts stand together.
std::string contents(const FileSummary& file) {
  if (file.file.name == index_name) return "links to all tensors";
  if (file.experts.empty()) return "replicated parameters";
  std::map<int, std::vector<int>> experts;
  for (const auto& [layer, expert] : file.experts) experts[layer].push_back(expert);
  std::map<std::vector<int>, std::vector<int>> layers;
  for (const auto& [layer, numbers] : experts) layers[numbers].push_back(layer);
  std::vector<std::string> parts;
  for (const auto& [numbers, of] : layers) {
    parts.push_back(fmt::format("layer{} {}: expert{} {}", of.size() == 1 ? "" : "s", ranges(of),
                                numbers.size() == 1 ? "" : "s", ranges(numbers)));
  }
  std::sort(parts.begin(), parts.end());
  return fmt::format("{}", fmt::join(parts, "; "));
}

void print_norms(const Shown& shown) {
  fmt::print("\nnorms of the experts' weights (Euclidean, all tensors of an expert together)\n");
  for (const auto& [layer, experts] : shown.summary.experts) {
    std::vector<std::string> cells;
    for (const int expert : experts)
      cells.push_back(fmt::format("{}: {:.4f}", expert, shown.norms.at({layer, expert})));
    fmt::print("  layer {:<3} {}\n", layer, fmt::join(cells, "  "));
  }
}

void print_tensors(const Shown& shown) {
  Table table({"tensor", "state", "shape", "bytes", "XXH3-64", "file"});
  for (const TensorRecord& tensor : shown.manifest.tensors) {
    table.add({tensor.name, state_name(tensor.kind), fmt::format("[{}]", fmt::join(tensor.shape, ", ")),
               std::to_string(tensor.bytes()), to_hex(tensor.hash), tensor.file});
  }
  fmt::print("\n{}", table.text());
}

void print_text(const Shown& shown, const Arguments& arguments) {
  const RunState& state = shown.manifest.state;
  fmt::print("{}\n", shown.path.string());
  const auto line = [](const char* name, const std::string& text) { fmt::print("  {:<11} {}\n", name, text); };
  line("run", state.run_id);
  line("step", fmt::format("{} ({} updates, {} skipped), {} tokens, next sample {}", state.step, state.updates,
                           state.skipped, state.tokens, state.next_sample));
  line("seed", std::to_string(state.seed));
  line("digest", fmt::format("{}, {} numerics", to_hex(state.digest), name_of(state.numerics)));
  line("parameters", fmt::format("{}{}", shown.summary.parameters,
                                 shown.active ? fmt::format(", {} active a token", *shown.active) : ""));
  for (const auto& [part, count] : shown.summary.by_part) line("", fmt::format("{:>14} {}", count, part));
  line("optimizer", shown.summary.optimizer ? "both moments" : "left out: weights alone");
  std::int64_t bytes = 0;
  for (const FileSummary& file : shown.summary.files) bytes += file.file.bytes;
  line("layout", fmt::format("written for {} rank{}: {} files, {}", shown.manifest.ranks,
                             shown.manifest.ranks == 1 ? "" : "s", shown.summary.files.size(), human_bytes(bytes)));
  Table files({"  file", "bytes", "experts", "holds"});
  for (const FileSummary& file : shown.summary.files) {
    files.add(
        {"  " + file.file.name, std::to_string(file.file.bytes), std::to_string(file.experts.size()), contents(file)});
  }
  fmt::print("\n{}", files.text());
  if (!shown.norms.empty()) print_norms(shown);
  if (arguments.tensors) print_tensors(shown);
  fmt::print("\nconfig\n");
  std::string_view rest = state.config_toml;
  while (!rest.empty()) {
    const std::string_view text = rest.substr(0, rest.find('\n'));
    fmt::print("{}{}\n", text.empty() ? "" : "  ", text);
    rest.remove_prefix(std::min(text.size() + 1, rest.size()));
  }
}

ordered_json json_of_experts(const Shown& shown) {
  ordered_json experts = ordered_json::array();
  for (const auto& [layer, numbers] : shown.summary.experts) {
    for (const int expert : numbers) {
      ordered_json object = {{"layer", layer}, {"expert", expert}};
      if (!shown.norms.empty()) object["norm"] = shown.norms.at({layer, expert});
      experts.push_back(std::move(object));
    }
  }
  return experts;
}

ordered_json json_of_tensors(const Shown& shown) {
  ordered_json tensors = ordered_json::array();
  for (const TensorRecord& tensor : shown.manifest.tensors) {
    tensors.push_back({{"name", tensor.name},
                       {"state", state_name(tensor.kind)},
                       {"shape", tensor.shape},
                       {"bytes", tensor.bytes()},
                       {"xxh3_64", to_hex(tensor.hash)},
                       {"file", tensor.file},
                       {"path", tensor.path}});
  }
  return tensors;
}

void print_json(const Shown& shown, const Arguments& arguments) {
  const RunState& state = shown.manifest.state;
  ordered_json parts = ordered_json::object();
  for (const auto& [part, count] : shown.summary.by_part) parts[part] = count;
  ordered_json files = ordered_json::array();
  for (const FileSummary& file : shown.summary.files) {
    files.push_back({{"name", file.file.name},
                     {"bytes", file.file.bytes},
                     {"xxh3_128", to_hex(file.file.hash)},
                     {"rank", file.file.rank},
                     {"tensors", file.tensors},
                     {"experts", file.experts.size()}});
  }
  ordered_json parameters = {{"total", shown.summary.parameters}};
  if (shown.active) parameters["active"] = *shown.active;
  parameters["parts"] = parts;
  ordered_json object = {{"path", shown.path.string()},
                         {"run_id", state.run_id},
                         {"step", state.step},
                         {"updates", state.updates},
                         {"skipped", state.skipped},
                         {"tokens", state.tokens},
                         {"next_sample", state.next_sample},
                         {"epoch", state.epoch},
                         {"seed", state.seed},
                         {"digest", to_hex(state.digest)},
                         {"numerics", name_of(state.numerics)},
                         {"parameters", parameters},
                         {"optimizer", shown.summary.optimizer},
                         {"ranks", shown.manifest.ranks},
                         {"files", files},
                         {"experts", json_of_experts(shown)},
                         {"config", state.config_toml}};
  if (arguments.tensors) object["tensors"] = json_of_tensors(shown);
  fmt::print("{}\n", object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

int run_show(const Arguments& arguments) {
  std::vector<std::string> skipped;
  Shown shown;
  shown.path = one_step_folder(arguments.path, &skipped);
  for (const std::string& reason : skipped) log_warning("passed over a checkpoint: {}", reason);
  shown.manifest = read_manifest(shown.path);
  shown.summary = summarise(shown.manifest);
  shown.active = active_parameters(shown.path, shown.manifest);
  if (!arguments.no_norms) shown.norms = expert_norms(shown.path, shown.manifest);
  if (arguments.json) {
    print_json(shown, arguments);
  } else {
    print_text(shown, arguments);
  }
  return 0;
}

}  // namespace

void add_checkpoint_show(const Command& parent, Run& run) {
  const Command command =
      parent.add_command("show", "A checkpoint's state, parameters, files, experts' norms and config");
  auto arguments = std::make_shared<Arguments>();
  command.add_option("PATH", arguments->path, "A step folder, or a run's folder: then its newest complete checkpoint",
                     {.required = true, .type = ""});
  command.add_flag("--tensors", arguments->tensors, "List all tensors");
  command.add_flag("--no-norms", arguments->no_norms, "Leave out the norms, which take reading all experts' weights");
  command.add_flag("--json", arguments->json, "Print one JSON object");
  command.does(run, [arguments] { return run_show(*arguments); });
}

}  // namespace switchyard
