// switchyard checkpoint: tools for checkpoints, a subcommand each. They need no MPI: one process does the work, and the
// others of a launcher leave at once.
#pragma once

#include "launch/commands.h"

#include <functional>

namespace switchyard {

void add_checkpoint(const Command& parent, Run& run);

void add_checkpoint_ls(const Command& parent, Run& run);
void add_checkpoint_show(const Command& parent, Run& run);
void add_checkpoint_verify(const Command& parent, Run& run);
void add_checkpoint_reshard(const Command& parent, Run& run);
void add_checkpoint_extract(const Command& parent, Run& run);

}  // namespace switchyard
