// switchyard prepare: text to token shards (data/prepare).
#pragma once

#include "launch/commands.h"

namespace switchyard {

// Adds the subcommand to `app`. Where it is the one called, `run` is what to do then, and returns the exit code.
void add_prepare(CLI::App& app, Run& run);

}  // namespace switchyard
