// A new HDF5 file as all of a checkpoint's are: the format of HDF5 1.10, readable by everything since; no locks (many
// network file systems have none); nothing in it that depends on the hour, so equal states give equal files.
#pragma once

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/hdf5_handle.h"

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace switchyard::checkpoint {

class Hdf5File {
 public:
  // Creates the file, which must not exist. `reserve`: bytes to ask the disk for at once, so that a full disk is told
  // before the work; 0: none.
  Hdf5File(const std::filesystem::path& path, const RunState& state, std::int64_t reserve);

  hid_t get() const { return file_.get(); }
  const std::filesystem::path& path() const { return path_; }
  // Makes the groups above a dataset's or link's path, where they are not there yet.
  void make_groups_above(const std::string& path);
  // Throws Error(Runtime) where HDF5 cannot write what it still held. It never fsyncs: that is the caller's.
  void close();

 private:
  std::filesystem::path path_;
  Hdf5Handle file_;
  std::set<std::string, std::less<>> groups_;
};

// Puts attributes on the root of a file that is there. Throws Error(Runtime).
using Attribute = std::pair<const char*, std::variant<std::int64_t, std::string>>;
void add_attributes(const std::filesystem::path& path, const std::vector<Attribute>& attributes);

// For reading; no locks either. Throws Error(Data).
Hdf5Handle open_hdf5_file(const std::filesystem::path& path);

}  // namespace switchyard::checkpoint
