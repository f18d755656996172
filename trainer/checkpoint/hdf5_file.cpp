#include "trainer/checkpoint/hdf5_file.h"

#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/manifest.h"

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

namespace switchyard::checkpoint {
namespace {

Hdf5Handle file_access(const std::filesystem::path& path) {
  Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  const bool done = H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
                    H5Pset_file_locking(access.get(), false, true) >= 0 &&
                    H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG) >= 0;
  hdf5_require(done, ErrorKind::Runtime, "cannot set up HDF5 for {}", path.string());
  return access;
}

void write_attribute(hid_t file, const std::filesystem::path& path, const char* name, hid_t type, const void* value) {
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Hdf5Handle attribute(H5Acreate2(file, name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  hdf5_require(attribute && H5Awrite(attribute.get(), type, value) >= 0, ErrorKind::Runtime, "cannot write {}",
               path.string());
}

void write_text_attribute(hid_t file, const std::filesystem::path& path, const char* name, const std::string& text) {
  const Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  // Of variable length: what h5py gives as str.
  hdf5_require(H5Tset_size(type.get(), H5T_VARIABLE) >= 0 && H5Tset_cset(type.get(), H5T_CSET_UTF8) >= 0,
               ErrorKind::Runtime, "cannot write {}", path.string());
  const char* const value = text.c_str();
  write_attribute(file, path, name, type.get(), &value);
}

}  // namespace

Hdf5File::Hdf5File(const std::filesystem::path& path, const RunState& state, std::int64_t reserve) : path_(path) {
  quiet_hdf5();
  const Hdf5Handle access = file_access(path);
  const Hdf5Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  hdf5_require(H5Pset_obj_track_times(creation.get(), false) >= 0, ErrorKind::Runtime, "cannot set up HDF5 for {}",
               path.string());
  file_ = Hdf5Handle(H5Fcreate(path.c_str(), H5F_ACC_EXCL, creation.get(), access.get()), H5Fclose);
  hdf5_require(bool(file_), ErrorKind::Runtime, "cannot create {}", path.string());
  if (reserve > 0) {
    void* descriptor = nullptr;
    hdf5_require(H5Fget_vfd_handle(file_.get(), access.get(), &descriptor) >= 0, ErrorKind::Runtime, "cannot use {}",
                 path.string());
    // A file system without this call is as good as before; only a full disk or quota is a reason to stop here.
    if (::fallocate(*static_cast<int*>(descriptor), FALLOC_FL_KEEP_SIZE, 0, reserve) != 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
      fail_errno(ErrorKind::Runtime, fmt::format("cannot reserve {} for", human_bytes(reserve)), path);
    }
  }
  write_text_attribute(file_.get(), path, "format", fmt::format("switchyard-checkpoint {}", format_version));
  write_text_attribute(file_.get(), path, "run", state.run_id);
  write_attribute(file_.get(), path, "step", H5T_NATIVE_INT64, &state.step);
}

void Hdf5File::make_groups_above(const std::string& path) {
  for (std::size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    const std::string group = path.substr(0, slash);
    if (!groups_.insert(group).second) continue;
    const Hdf5Handle creation(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
    const Hdf5Handle made(H5Pset_obj_track_times(creation.get(), false) < 0
                              ? H5I_INVALID_HID
                              : H5Gcreate2(file_.get(), group.c_str(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
                          H5Gclose);
    hdf5_require(bool(made), ErrorKind::Runtime, "cannot make the group {} in {}", group, path_.string());
  }
}

void Hdf5File::close() {
  hdf5_require(file_.close(), ErrorKind::Runtime, "cannot write {}", path_.string());
}

void add_attributes(const std::filesystem::path& path, const std::vector<Attribute>& attributes) {
  quiet_hdf5();
  const Hdf5Handle access = file_access(path);
  Hdf5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDWR, access.get()), H5Fclose);
  hdf5_require(bool(file), ErrorKind::Runtime, "cannot open {}", path.string());
  for (const auto& [name, value] : attributes) {
    if (const auto* text = std::get_if<std::string>(&value)) {
      write_text_attribute(file.get(), path, name, *text);
    } else {
      write_attribute(file.get(), path, name, H5T_NATIVE_INT64, &std::get<std::int64_t>(value));
    }
  }
  hdf5_require(file.close(), ErrorKind::Runtime, "cannot write {}", path.string());
}

Hdf5Handle open_hdf5_file(const std::filesystem::path& path) {
  quiet_hdf5();
  const Hdf5Handle access = file_access(path);
  Hdf5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  hdf5_require(bool(file), ErrorKind::Data, "{}: HDF5 cannot open it", path.string());
  return file;
}

}  // namespace switchyard::checkpoint
