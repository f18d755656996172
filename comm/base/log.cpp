#include "comm/base/log.h"

#include <atomic>
#include <cstdio>
#include <string>

#include <unistd.h>

namespace switchyard {
namespace {

std::atomic<int> log_rank = 0;
std::atomic<int> log_ranks = 1;

struct Style {
  const char* word;
  const char* color;
};
Style style_of(LogLevel level) {
  switch (level) {
    case LogLevel::Info:
      return {"", ""};
    case LogLevel::Warning:
      return {"warning: ", "\033[33m"};
    case LogLevel::Error:
      return {"error: ", "\033[31m"};
  }
  return {"", ""};
}

}  // namespace

void set_log_rank(int rank, int ranks) {
  log_rank = rank;
  log_ranks = ranks;
}

void write_log(LogLevel level, std::string_view message) {
  const int rank = log_rank;
  if (level == LogLevel::Info && rank != 0) return;

  const Style style = style_of(level);
  const bool colored = *style.color != '\0' && isatty(STDERR_FILENO) == 1;
  std::string line;
  if (level != LogLevel::Info && log_ranks > 1) line = fmt::format("rank {}: ", rank);
  line += colored ? fmt::format("{}{}\033[0m", style.color, style.word) : std::string(style.word);
  line += message;
  line += '\n';
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace switchyard
