#include "launch/checkpoint.h"

#include "comm/group/environment.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

namespace switchyard {

void add_checkpoint(CLI::App& parent, Run& run) {
  auto* command = parent.add_subcommand("checkpoint", "List, look into, check, rewrite and take apart checkpoints");
  command->require_subcommand(1);
  for (const auto add : {add_checkpoint_ls, add_checkpoint_show, add_checkpoint_verify, add_checkpoint_reshard,
                         add_checkpoint_extract}) {
    add(*command, run);
  }
  command->final_callback([&run] { run = [work = std::move(run)] { return launched_as().rank == 0 ? work() : 0; }; });
}

}  // namespace switchyard
