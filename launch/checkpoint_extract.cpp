// switchyard checkpoint extract: one expert as a file of its own.
#include "comm/base/log.h"
#include "launch/checkpoint.h"
#include "trainer/checkpoint/browse.h"
#include "trainer/checkpoint/extract.h"
#include "trainer/checkpoint/files.h"

#include <memory>
#include <string>
#include <vector>

namespace switchyard {
namespace {

struct Arguments {
  std::string source;
  std::string file;
  int layer = 0;
  int expert = 0;
  bool drop_optimizer = false;
};

int run_extract(Arguments arguments) {
  std::vector<std::string> skipped;
  const std::filesystem::path source = one_step_folder(arguments.source, &skipped);
  for (const std::string& reason : skipped) log_warning("passed over a checkpoint: {}", reason);
  if (arguments.file.empty()) {
    arguments.file = fmt::format("{}-layer-{}-expert-{}.h5", std::filesystem::absolute(source).filename().string(),
                                 arguments.layer, arguments.expert);
  }
  const Extracted result =
      extract_expert(source, arguments.layer, arguments.expert, arguments.file, arguments.drop_optimizer);
  log_info("{}: layer {} expert {}, {} tensors, {}", arguments.file, arguments.layer, arguments.expert, result.tensors,
           checkpoint::human_bytes(result.bytes));
  return 0;
}

}  // namespace

void add_checkpoint_extract(const Command& parent, Run& run) {
  const Command command = parent.add_command("extract", "Write one expert as an HDF5 file of its own");
  auto arguments = std::make_shared<Arguments>();
  command.add_option("SRC", arguments->source, "A step folder, or a run's folder: then its newest complete checkpoint",
                     {.required = true, .type = ""});
  command.add_option("--layer", arguments->layer, "Counted from 0",
                     {.required = true, .accepted = accept::NotNegative(), .type = "L"});
  command.add_option("--expert", arguments->expert, "Counted from 0",
                     {.required = true, .accepted = accept::NotNegative(), .type = "E"});
  command.add_option("-o,--out", arguments->file, "The file to make (default: STEP-layer-L-expert-E.h5, here)",
                     {.type = "FILE"});
  command.add_flag("--drop-optimizer", arguments->drop_optimizer, "Weights alone");
  command.does(run, [arguments] { return run_extract(*arguments); });
}

}  // namespace switchyard
