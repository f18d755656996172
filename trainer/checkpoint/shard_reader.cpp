#include "trainer/checkpoint/shard_reader.h"

#include "trainer/checkpoint/hdf5_file.h"
#include "trainer/checkpoint/names.h"

#include <algorithm>

namespace switchyard::checkpoint {
namespace {

std::string wrong_size(std::int64_t size, const FileRecord& file) {
  return fmt::format("has {} bytes, the manifest says {}: it is truncated or another file", size, file.bytes);
}

// Every part of the path is a hard link: H5Dopen itself would follow soft and external ones.
bool is_behind_hard_links(hid_t file, const std::string& path) {
  for (std::size_t slash = 0; slash != std::string::npos;) {
    slash = path.find('/', slash + 1);
    H5L_info_t link;
    if (H5Lget_info(file, path.substr(0, slash).c_str(), &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD) {
      return false;
    }
  }
  return true;
}

// What stands against reading the dataset, or nothing.
const char* objection(hid_t dataset, const TensorRecord& tensor) {
  const Hdf5Handle creation(H5Dget_create_plist(dataset), H5Pclose);
  if (!creation || H5Pget_layout(creation.get()) != H5D_CONTIGUOUS) return "its layout is not contiguous";
  if (H5Pget_external_count(creation.get()) != 0) return "its data lies in another file";
  if (H5Pget_nfilters(creation.get()) != 0) return "it has a filter";
  const Hdf5Handle type(H5Dget_type(dataset), H5Tclose);
  if (!type || H5Tequal(type.get(), H5T_IEEE_F32LE) <= 0) return "its type is not little-endian float32";
  const Hdf5Handle space(H5Dget_space(dataset), H5Sclose);
  hsize_t dims[H5S_MAX_RANK];
  if (!space || H5Sget_simple_extent_type(space.get()) != H5S_SIMPLE) return "its shape is not the manifest's";
  const int rank = H5Sget_simple_extent_dims(space.get(), dims, nullptr);
  if (rank != static_cast<int>(tensor.shape.size()) ||
      !std::equal(tensor.shape.begin(), tensor.shape.end(), dims,
                  [](std::int64_t wanted, hsize_t found) { return static_cast<hsize_t>(wanted) == found; })) {
    return "its shape is not the manifest's";
  }
  if (H5Dget_offset(dataset) != static_cast<haddr_t>(tensor.offset)) return "it is not where the manifest says";
  if (H5Dget_storage_size(dataset) != static_cast<hsize_t>(tensor.bytes())) return "its size is not that of its shape";
  return nullptr;
}

}  // namespace

std::string fault_of_size(const std::filesystem::path& folder, const FileRecord& file) try {
  const std::filesystem::path path = folder / file.name;
  const std::int64_t size = size_of_file(open_plain_file(path), path);
  return size == file.bytes ? std::string() : fmt::format("{}: {}", path.string(), wrong_size(size, file));
} catch (const Error& error) {
  return error.what();
}

FileFault fault_of_file(const std::filesystem::path& folder, const FileRecord& file,
                        const std::vector<const TensorRecord*>& tensors) {
  const std::filesystem::path path = folder / file.name;
  FileFault fault;
  const FileDescriptor descriptor = open_plain_file(path);
  const std::int64_t size = size_of_file(descriptor, path);
  if (size != file.bytes) {
    fault.what = wrong_size(size, file);
  } else {
    const Hash128 hash = hash128_of_file(descriptor, path);
    if (hash == file.hash) return fault;
    fault.what = fmt::format("its XXH3-128 is {}, the manifest says {}: it is damaged or another file", to_hex(hash),
                             to_hex(file.hash));
  }
  for (const TensorRecord* tensor : tensors) {
    if (hash64_of_file_part(descriptor, path, tensor->offset, tensor->bytes()) != tensor->hash) {
      fault.tensors.push_back(tensor);
    }
  }
  return fault;
}

std::string to_text(const std::filesystem::path& file, const FileFault& fault) {
  constexpr std::size_t most = 4;
  std::string text = fmt::format("{}: {}; ", file.string(), fault.what);
  if (fault.tensors.empty()) return text + "the tensors looked for are whole, but the file around them is not";
  text += "damaged: ";
  for (std::size_t i = 0; i < std::min(most, fault.tensors.size()); ++i) {
    const TensorRecord& tensor = *fault.tensors[i];
    text += fmt::format("{}{}", i > 0 ? ", " : "", describe(tensor.name, tensor.kind, tensor.owner));
  }
  return fault.tensors.size() > most ? fmt::format("{} and {} more", text, fault.tensors.size() - most) : text;
}

ShardReader::ShardReader(const std::filesystem::path& folder, const FileRecord& file,
                         const std::vector<const TensorRecord*>& wanted)
    : path_(folder / file.name) {
  const FileFault fault = fault_of_file(folder, file, wanted);
  if (!fault.what.empty()) throw Error(ErrorKind::Data, to_text(path_, fault));
  file_ = open_hdf5_file(path_);
}

void ShardReader::read(const TensorRecord& tensor, float* data) const {
  quiet_hdf5();
  const std::string what = describe(tensor.name, tensor.kind, tensor.owner);
  if (!is_behind_hard_links(file_.get(), tensor.path)) {
    fail(ErrorKind::Data, "{}: {} is not there as plain groups and a dataset ({})", path_.string(), tensor.path, what);
  }
  const Hdf5Handle dataset(H5Dopen2(file_.get(), tensor.path.c_str(), H5P_DEFAULT), H5Dclose);
  hdf5_require(bool(dataset), ErrorKind::Data, "{}: cannot open {} ({})", path_.string(), tensor.path, what);
  if (const char* fault = objection(dataset.get(), tensor)) {
    fail(ErrorKind::Data, "{}: {} ({}) is not read: {}", path_.string(), tensor.path, what, fault);
  }
  hdf5_require(H5Dread(dataset.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0, ErrorKind::Data,
               "{}: cannot read {} ({})", path_.string(), tensor.path, what);
  if (hash64(data, tensor.bytes()) != tensor.hash) {
    fail(ErrorKind::Data, "{}: {} ({}) is not what was written: its XXH3-64 is not the manifest's", path_.string(),
         tensor.path, what);
  }
}

}  // namespace switchyard::checkpoint
