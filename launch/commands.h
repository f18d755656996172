// The command line: one thin file a subcommand.
//
// A subcommand is a function add_NAME(parent, run): it adds itself to `parent`, and says what is to be put into `run`
// where it is given. A new one is its two files and its line in cli.cpp.
#pragma once

#include "launch/command_line.h"

namespace switchyard {

// Exit codes: 0 done; 1 failure at run time; 2 usage or config; 65 corrupt or unusable data; 75 stopped early by
// request.
int run_command_line(int argc, char** argv);

}  // namespace switchyard
