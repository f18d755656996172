// What a process says of its own end goes to stderr, past the log.
#pragma once

#include <cstdio>
#include <string>

namespace switchyard {

// One call for one line, so that it does not mix with those of other ranks.
inline void speak(const std::string& line) {
  std::fflush(stdout);
  std::fputs((line + "\n").c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace switchyard
