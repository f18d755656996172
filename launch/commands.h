// The command line: one thin file a subcommand. Each adds itself to the CLI11 app and gives what to run.
#pragma once

namespace switchyard {

// Exit codes: 0 done; 1 failure at run time; 2 usage or config; 65 corrupt or unusable data; 75 stopped early by request.
int run_command_line(int argc, char** argv);

}  // namespace switchyard
