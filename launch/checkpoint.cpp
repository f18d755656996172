#include "launch/checkpoint.h"

#include "comm/group/environment.h"

namespace switchyard {

void add_checkpoint(const Command& parent, Run& run) {
  const Command command =
      parent.add_command("checkpoint", "List, look into, check, rewrite and take apart checkpoints");
  command.require_command();
  for (const auto add : {add_checkpoint_ls, add_checkpoint_show, add_checkpoint_verify, add_checkpoint_reshard,
                         add_checkpoint_extract}) {
    add(command, run);
  }
  command.then([&run] { run = [work = std::move(run)] { return launched_as().rank == 0 ? work() : 0; }; });
}

}  // namespace switchyard
