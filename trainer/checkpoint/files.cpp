#include "trainer/checkpoint/files.h"

#include "comm/base/ids.h"

#include <cerrno>
#include <cstdio>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace switchyard::checkpoint {

void fail_errno(ErrorKind kind, std::string_view what, const std::filesystem::path& path) {
  const std::string reason = std::generic_category().message(errno);
  fail(kind, "{} {}: {}", what, path.string(), reason);
}

FileDescriptor open_plain_file(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a pipe that somebody left there must not wait for a writer.
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0 && errno == ELOOP)
    fail(ErrorKind::Data, "{}: is a symbolic link, which is not followed", path.string());
  if (file.get() < 0) fail_errno(ErrorKind::Data, "cannot open", path);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_errno(ErrorKind::Data, "cannot read", path);
  if (!S_ISREG(status.st_mode)) fail(ErrorKind::Data, "{}: is not a regular file", path.string());
  return file;
}

std::int64_t size_of_file(const FileDescriptor& file, const std::filesystem::path& path) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_errno(ErrorKind::Data, "cannot read", path);
  return status.st_size;
}

std::int64_t read_at(const FileDescriptor& file, const std::filesystem::path& path, void* data, std::int64_t count,
                     std::int64_t offset) {
  std::int64_t done = 0;
  while (done < count) {
    const ssize_t got = ::pread(file.get(), static_cast<char*>(data) + done, usize(count - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_errno(ErrorKind::Data, "cannot read", path);
    if (got == 0) break;
    done += got;
  }
  return done;
}

void write_at(const FileDescriptor& file, const std::filesystem::path& path, const void* data, std::int64_t count,
              std::int64_t offset) {
  const auto* from = static_cast<const char*>(data);
  while (count > 0) {
    const ssize_t written = ::pwrite(file.get(), from, usize(count), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_errno(ErrorKind::Runtime, "cannot write", path);
    if (written == 0) fail(ErrorKind::Runtime, "cannot write {}: the system took nothing", path.string());
    from += written;
    offset += written;
    count -= written;
  }
}

std::string read_text(const std::filesystem::path& path, std::int64_t max_bytes) {
  const FileDescriptor file = open_plain_file(path);
  const std::int64_t size = size_of_file(file, path);
  if (size > max_bytes) {
    fail(ErrorKind::Data, "{}: has {} bytes, more than the {} that are read", path.string(), size, max_bytes);
  }
  std::string text(usize(size), '\0');
  text.resize(usize(read_at(file, path, text.data(), size, 0)));
  return text;
}

void write_new_file(const std::filesystem::path& path, std::string_view text, bool durable) {
  const FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (file.get() < 0) fail_errno(ErrorKind::Runtime, "cannot create", path);
  write_at(file, path, text.data(), isize(text.size()), 0);
  if (durable) sync_file(file, path);
}

void replace_file(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::path beside = path;
  beside += ".new";
  if (::unlink(beside.c_str()) != 0 && errno != ENOENT) fail_errno(ErrorKind::Runtime, "cannot replace", beside);
  write_new_file(beside, text);
  rename_path(beside, path);
  sync_folder(path.parent_path());
}

void sync_file(const FileDescriptor& file, const std::filesystem::path& path) {
  if (::fsync(file.get()) != 0) fail_errno(ErrorKind::Runtime, "cannot bring to the disk (fsync)", path);
}

void sync_folder(const std::filesystem::path& folder) {
  const FileDescriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (file.get() < 0) fail_errno(ErrorKind::Runtime, "cannot open the folder", folder);
  // Some network file systems have no fsync of folders and say so with EINVAL; there is nothing better to do there.
  if (::fsync(file.get()) != 0 && errno != EINVAL) {
    fail_errno(ErrorKind::Runtime, "cannot bring to the disk (fsync) the folder", folder);
  }
}

void rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) {
    fail_errno(ErrorKind::Runtime, fmt::format("cannot rename {} to", from.string()), to);
  }
}

std::string human_bytes(std::int64_t bytes) {
  const char* units[] = {"bytes", "kB", "MB", "GB", "TB", "PB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= 1000 && unit < 5; ++unit) value /= 1000;
  return unit == 0 ? fmt::format("{} bytes", bytes) : fmt::format("{:.1f} {}", value, units[unit]);
}

}  // namespace switchyard::checkpoint
