// Files and folders with everything checked: what is opened is a plain file and no symbolic link, what is written is on
// the disk when the call returns, and every failure names the path and the system's reason.
#pragma once

#include "comm/base/error.h"
#include "comm/base/handle.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include <unistd.h>

namespace switchyard::checkpoint {

struct FileDescriptorTraits {
  using Value = int;
  static int none() { return -1; }
  static void release(int descriptor) noexcept { ::close(descriptor); }
};
using FileDescriptor = Handle<FileDescriptorTraits>;

// Throws Error(kind) "WHAT PATH: reason" from errno.
[[noreturn]] void fail_errno(ErrorKind kind, std::string_view what, const std::filesystem::path& path);

// Error(Data) where it is missing, a symbolic link or anything but a regular file.
FileDescriptor open_plain_file(const std::filesystem::path& path);
std::int64_t size_of_file(const FileDescriptor& file, const std::filesystem::path& path);
// Up to `count` bytes at `offset`: fewer only where the file ends.
std::int64_t read_at(const FileDescriptor& file, const std::filesystem::path& path, void* data, std::int64_t count,
                     std::int64_t offset);
// All of it, or Error(Runtime).
void write_at(const FileDescriptor& file, const std::filesystem::path& path, const void* data, std::int64_t count,
              std::int64_t offset);
// The whole file, Error(Data) where it is longer than max_bytes.
std::string read_text(const std::filesystem::path& path, std::int64_t max_bytes);

// Makes the file new (it must not exist), writes it, and fsyncs it where `durable`.
void write_new_file(const std::filesystem::path& path, std::string_view text, bool durable = true);
// Writes beside it, fsyncs, renames over it, fsyncs the folder: a reader sees the old text or the new one.
void replace_file(const std::filesystem::path& path, std::string_view text);
void sync_file(const FileDescriptor& file, const std::filesystem::path& path);
void sync_folder(const std::filesystem::path& folder);
void rename_path(const std::filesystem::path& from, const std::filesystem::path& to);

std::string human_bytes(std::int64_t bytes);  // "1.5 GB"

}  // namespace switchyard::checkpoint
