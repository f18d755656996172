// Files and folders that are there after a power cut, whole or not at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace switchyard {

// An open file for writing, made anew. Every call throws Error(Runtime) naming the file where the system refuses.
class DurableFile {
 public:
  explicit DurableFile(const std::filesystem::path& file);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  void write_at_start(std::span<const std::byte> bytes);  // over what is there; later writes still append
  void close();                                           // to the disk, then closed

 private:
  std::filesystem::path file_;
  int fd_ = -1;
};

// Writes `file` under a temporary name, and renames it when it is on the disk.
void write_durably(const std::filesystem::path& file, std::string_view text);
// Makes the renames and new names in `folder` outlast a power cut.
void sync_folder(const std::filesystem::path& folder);

}  // namespace switchyard
