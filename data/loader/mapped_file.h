// A file in memory, read-only, paged in by the kernel as it is touched.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace switchyard {

class MappedFile {
 public:
  // Throws Error(Usage) where the file cannot be opened, Error(Data) where it is not a regular file.
  explicit MappedFile(const std::filesystem::path& file);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Pages read so far no longer count as this process's memory; touched again, they come back from the file.
  void forget() const;

 private:
  const std::byte* data_ = nullptr;  // null: an empty file
  std::size_t size_ = 0;
};

}  // namespace switchyard
