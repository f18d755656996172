// Errors that a user reads. Three kinds, by what the process should exit with.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/core.h>

namespace switchyard {

enum class ErrorKind {
  Runtime = 1,  // a bug, a broken machine, a failed write
  Usage = 2,    // the command line or the config asks for something that cannot be
  Data = 65,    // a file is corrupt, foreign or of another version
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }

 private:
  ErrorKind kind_;
};

template <class... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

// What the caller promised and did not keep: always checked, in release builds too.
template <class... Args>
void require(bool holds, fmt::format_string<Args...> format, Args&&... args) {
  if (!holds) [[unlikely]]
    throw Error(ErrorKind::Runtime, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace switchyard
