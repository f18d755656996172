#include "comm/base/log.h"

#include "tests/support/catch.h"

#include <array>
#include <cstdio>
#include <string>

#include <unistd.h>

namespace switchyard {
namespace {

// What `work` writes to stderr.
template <class Work>
std::string written_by(const Work& work) {
  std::fflush(stderr);
  std::FILE* file = std::tmpfile();
  const int saved = dup(STDERR_FILENO);
  dup2(fileno(file), STDERR_FILENO);
  work();
  dup2(saved, STDERR_FILENO);
  close(saved);

  std::rewind(file);
  std::string text;
  std::array<char, 4096> block;
  while (const std::size_t n = std::fread(block.data(), 1, block.size(), file)) text.append(block.data(), n);
  std::fclose(file);
  return text;
}

void say_all() {
  log_info("read {} of {}", 3, "x");
  log_warning("{} is slow", "disk");
  log_error("gone");
}

}  // namespace

TEST_CASE("messages are whole lines; a file gets no colour") {
  set_log_rank(0, 1);
  REQUIRE(written_by(say_all) == "read 3 of x\nwarning: disk is slow\nerror: gone\n");
}

TEST_CASE("among several ranks the first informs, and each warns under its number") {
  set_log_rank(0, 4);
  REQUIRE(written_by(say_all) == "read 3 of x\nrank 0: warning: disk is slow\nrank 0: error: gone\n");
  set_log_rank(2, 4);
  REQUIRE(written_by(say_all) == "rank 2: warning: disk is slow\nrank 2: error: gone\n");
  set_log_rank(0, 1);
}

}  // namespace switchyard
