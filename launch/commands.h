// The command line: one thin file a subcommand.
//
// A subcommand is a function add_NAME(parent, run): it adds itself to the CLI11 app `parent`, and in its callback puts
// what is to be done into `run`, which gives the exit code. Nothing is done while the command line is still being read.
// A new one is its two files and its line in cli.cpp.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace switchyard {

using Run = std::function<int()>;

// Exit codes: 0 done; 1 failure at run time; 2 usage or config; 65 corrupt or unusable data; 75 stopped early by
// request.
int run_command_line(int argc, char** argv);

}  // namespace switchyard
