#include "launch/commands.h"

int main(int argc, char** argv) {
  return switchyard::run_command_line(argc, argv);
}
