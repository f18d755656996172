#include "data/loader/durable.h"

#include "comm/base/error.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const fs::path& file, const char* what) {
  const int cause = errno;
  fail(ErrorKind::Runtime, "{}: {}: {}", file.string(), what, std::strerror(cause));
}

}  // namespace

DurableFile::DurableFile(const fs::path& file)
    : file_(file), fd_(::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  if (fd_ < 0) refuse(file_, "cannot be created");
}

DurableFile::~DurableFile() {
  if (fd_ >= 0) ::close(fd_);
}

void DurableFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) refuse(file_, "cannot be written");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void DurableFile::write_at_start(std::span<const std::byte> bytes) {
  if (::lseek(fd_, 0, SEEK_SET) != 0) refuse(file_, "cannot be rewound");
  write(bytes);
  if (::lseek(fd_, 0, SEEK_END) < 0) refuse(file_, "cannot be rewound");
}

void DurableFile::close() {
  if (::fsync(fd_) != 0) refuse(file_, "cannot be written to the disk");
  if (::close(std::exchange(fd_, -1)) != 0) refuse(file_, "cannot be closed");
}

void write_durably(const fs::path& file, std::string_view text) {
  fs::path temporary = file;
  temporary += ".partial";
  DurableFile out(temporary);
  out.write(text);
  out.close();
  fs::rename(temporary, file);
  sync_folder(file.parent_path());
}

void sync_folder(const fs::path& folder) {
  const fs::path named = folder.empty() ? fs::path(".") : folder;
  const int fd = ::open(named.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) refuse(named, "cannot be opened");
  // Some file systems cannot sync a folder and say so with EINVAL; there is nothing more to do on those.
  const bool synced = ::fsync(fd) == 0 || errno == EINVAL;
  if (!synced) {
    const int cause = errno;
    ::close(fd);
    errno = cause;
    refuse(named, "cannot be written to the disk");
  }
  ::close(fd);
}

}  // namespace switchyard
