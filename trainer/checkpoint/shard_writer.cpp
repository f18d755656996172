#include "trainer/checkpoint/shard_writer.h"

#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/names.h"

#include <bit>

namespace switchyard::checkpoint {
namespace {

// A dataset's header, its link and its share of the groups above; about half of this in practice.
constexpr std::int64_t structure_bytes = 1024;

std::vector<std::int64_t> dims_of(const Shape& shape) {
  std::vector<std::int64_t> dims;
  for (int i = 0; i < shape.rank(); ++i) dims.push_back(shape[i]);
  return dims;
}

}  // namespace

std::int64_t shard_bytes(const std::vector<const StateTensor*>& tensors) {
  std::int64_t bytes = 4 * structure_bytes;
  for (const StateTensor* tensor : tensors) bytes += tensor->shape.size() * isize(sizeof(float)) + structure_bytes;
  return bytes;
}

ShardWriter::ShardWriter(const std::filesystem::path& folder, const std::string& name, const RunState& state,
                         std::int64_t reserve)
    : name_(name), file_(folder / name, state, reserve) {}

void ShardWriter::add(const StateTensor& tensor) {
  static_assert(std::endian::native == std::endian::little, "checkpoints hold what lies in memory");
  TensorRecord record;
  record.name = tensor.name;
  record.kind = tensor.kind;
  record.owner = tensor.owner;
  record.shape = dims_of(tensor.shape);
  record.file = name_;
  record.path = dataset_path(tensor.name, tensor.kind);
  record.hash = hash64(tensor.data, record.bytes());

  file_.make_groups_above(record.path);
  const std::vector<hsize_t> dims(record.shape.begin(), record.shape.end());
  const Hdf5Handle space(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), H5Sclose);
  const Hdf5Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  const bool set_up = space && H5Pset_layout(creation.get(), H5D_CONTIGUOUS) >= 0 &&
                      H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY) >= 0 &&
                      H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER) >= 0 &&
                      H5Pset_obj_track_times(creation.get(), false) >= 0;
  const std::string what = describe(tensor.name, tensor.kind, tensor.owner);
  hdf5_require(set_up, ErrorKind::Runtime, "cannot describe {} to HDF5", what);
  Hdf5Handle dataset(H5Dcreate2(file_.get(), record.path.c_str(), H5T_IEEE_F32LE, space.get(), H5P_DEFAULT,
                                creation.get(), H5P_DEFAULT),
                     H5Dclose);
  hdf5_require(bool(dataset), ErrorKind::Runtime, "cannot make {} in {}", record.path, file_.path().string());
  const haddr_t offset = H5Dget_offset(dataset.get());
  hdf5_require(offset != HADDR_UNDEF, ErrorKind::Runtime, "{} has no place in {}", record.path, file_.path().string());
  record.offset = static_cast<std::int64_t>(offset);
  bool written = H5Dwrite(dataset.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor.data) >= 0;
  hdf5_require(written, ErrorKind::Runtime, "cannot write {} to {}", what, file_.path().string());
  hdf5_require(dataset.close(), ErrorKind::Runtime, "cannot write {} to {}", what, file_.path().string());
  tensors_.push_back(std::move(record));
}

FileRecord ShardWriter::finish(int rank) {
  file_.finish();
  const FileDescriptor file = open_plain_file(file_.path());
  return {name_, size_of_file(file, file_.path()), hash128_of_file(file, file_.path()), rank};
}

}  // namespace switchyard::checkpoint
