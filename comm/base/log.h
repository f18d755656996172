// Messages to people: one line on stderr each, written whole, so that the lines of several ranks do not mix. Data goes
// to stdout and never through here.
#pragma once

#include <string_view>
#include <utility>

#include <fmt/core.h>

namespace switchyard {

enum class LogLevel { Info, Warning, Error };

// Who speaks: only rank 0 writes info lines; warnings and errors of a rank among several begin with its number.
void set_log_rank(int rank, int ranks);

void write_log(LogLevel level, std::string_view message);

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  write_log(LogLevel::Info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  write_log(LogLevel::Warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  write_log(LogLevel::Error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace switchyard
