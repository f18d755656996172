// switchyard checkpoint: tools for checkpoints, a subcommand each. They need no MPI: one process does the work, and the
// others of a launcher leave at once.
#pragma once

#include "launch/commands.h"

#include <functional>

namespace switchyard {

void add_checkpoint(CLI::App& parent, Run& run);

void add_checkpoint_ls(CLI::App& parent, Run& run);
void add_checkpoint_show(CLI::App& parent, Run& run);
void add_checkpoint_verify(CLI::App& parent, Run& run);
void add_checkpoint_reshard(CLI::App& parent, Run& run);
void add_checkpoint_extract(CLI::App& parent, Run& run);

}  // namespace switchyard
