// switchyard checkpoint reshard: the same state in other files.
#include "comm/base/log.h"
#include "launch/checkpoint.h"
#include "trainer/checkpoint/browse.h"
#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/reshard.h"
#include "trainer/monitor/byte_bar.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

using checkpoint::ReshardOptions;

struct Arguments {
  std::string source;
  std::string destination;
  std::int64_t ranks = 0;
  std::int64_t experts_per_file = 0;
  bool per_expert = false;
  bool drop_optimizer = false;
  bool json = false;
};

ReshardOptions options_of(const Arguments& arguments) {
  ReshardOptions options;
  options.drop_optimizer = arguments.drop_optimizer;
  if (arguments.ranks > 0) {
    options.by = ReshardOptions::By::Ranks;
    options.count = arguments.ranks;
  } else if (arguments.per_expert || arguments.experts_per_file > 0) {
    options.by = ReshardOptions::By::ExpertsPerFile;
    options.count = arguments.per_expert ? 1 : arguments.experts_per_file;
  }
  return options;
}

int run_reshard(const Arguments& arguments) {
  std::vector<std::string> skipped;
  const std::filesystem::path source = one_step_folder(arguments.source, &skipped);
  for (const std::string& reason : skipped) log_warning("passed over a checkpoint: {}", reason);
  const auto start = std::chrono::steady_clock::now();
  Resharded result;
  {
    ByteBar bar(stderr);
    result = reshard_checkpoint(source, arguments.destination, options_of(arguments),
                                [&](std::int64_t done, std::int64_t total) { bar.show(done, total); });
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (arguments.json) {
    const nlohmann::ordered_json object = {{"source", source.string()}, {"destination", arguments.destination},
                                           {"ranks", result.ranks},     {"files", result.files},
                                           {"bytes", result.bytes},     {"seconds", seconds}};
    fmt::print("{}\n", object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    return 0;
  }
  log_info("{} -> {}: {} files, {} in {:.2f} s", source.string(), arguments.destination, result.files,
           checkpoint::human_bytes(result.bytes), seconds);
  return 0;
}

}  // namespace

void add_checkpoint_reshard(const Command& parent, Run& run) {
  const Command command = parent.add_command(
      "reshard", "Write a checkpoint anew in other files: for another number of ranks, an expert a file, for release");
  auto arguments = std::make_shared<Arguments>();
  command.add_option("SRC", arguments->source, "A step folder, or a run's folder: then its newest complete checkpoint",
                     {.required = true, .type = ""});
  command.add_option("DST", arguments->destination, "The step folder to make; it must not be there yet",
                     {.required = true, .type = ""});
  command.add_option("--ranks", arguments->ranks, "Files as a run of N ranks would write them",
                     {.accepted = accept::Positive(), .type = "N"});
  command.add_option("--experts-per-file", arguments->experts_per_file, "K experts in each file",
                     {.accepted = accept::Positive(), .type = "K", .excludes = {"--ranks"}});
  command.add_flag("--per-expert", arguments->per_expert, "One expert in each file", {"--ranks", "--experts-per-file"});
  command.add_flag("--drop-optimizer", arguments->drop_optimizer,
                   "Weights alone: for eval and generate, a third of the size; no training can go on from it");
  command.add_flag("--json", arguments->json, "Print one JSON object");
  command.does(run, [arguments] { return run_reshard(*arguments); });
}

}  // namespace switchyard
