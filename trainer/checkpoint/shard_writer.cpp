#include "trainer/checkpoint/shard_writer.h"

#include "comm/base/bytes_moved.h"
#include "comm/group/fault_point.h"
#include "trainer/checkpoint/hdf5_file.h"
#include "trainer/checkpoint/names.h"

#include <algorithm>
#include <bit>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace switchyard::checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little, "checkpoints hold what lies in memory");

// A dataset's header, its link and its share of the groups above; about half of this in practice.
constexpr std::int64_t structure_bytes = 1024;
constexpr std::int64_t piece_bytes =
    256 << 10;  // stays in the second-level cache from one hash to the next and the copy
constexpr std::int64_t flight_bytes = 16 << 20;  // the disk starts on so much while the next is hashed

// Makes the dataset and gives the place of its first byte.
std::int64_t make_dataset(Hdf5File& file, const TensorRecord& tensor) {
  file.make_groups_above(tensor.path);
  std::vector<hsize_t> dims(tensor.shape.begin(), tensor.shape.end());
  if (!tensor.whole()) dims = {static_cast<hsize_t>(tensor.count)};
  const Hdf5Handle space(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), H5Sclose);
  const Hdf5Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  const bool set_up = space && H5Pset_layout(creation.get(), H5D_CONTIGUOUS) >= 0 &&
                      H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY) >= 0 &&
                      H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER) >= 0 &&
                      H5Pset_obj_track_times(creation.get(), false) >= 0;
  hdf5_require(set_up, ErrorKind::Runtime, "cannot describe {} to HDF5", tensor.path);
  Hdf5Handle dataset(H5Dcreate2(file.get(), tensor.path.c_str(), H5T_IEEE_F32LE, space.get(), H5P_DEFAULT,
                                creation.get(), H5P_DEFAULT),
                     H5Dclose);
  hdf5_require(bool(dataset), ErrorKind::Runtime, "cannot make {} in {}", tensor.path, file.path().string());
  const haddr_t offset = H5Dget_offset(dataset.get());
  hdf5_require(offset != HADDR_UNDEF && dataset.close(), ErrorKind::Runtime, "{} has no place in {}", tensor.path,
               file.path().string());
  return static_cast<std::int64_t>(offset);
}

}  // namespace

std::int64_t shard_bytes(const std::vector<TensorRecord>& tensors) {
  std::int64_t bytes = 4 * structure_bytes;
  for (const TensorRecord& tensor : tensors) bytes += tensor.bytes() + structure_bytes;
  return bytes;
}

ShardWriter::ShardWriter(const std::filesystem::path& folder, const std::string& name, const RunState& state,
                         std::vector<TensorRecord> tensors)
    : path_(folder / name), name_(name), tensors_(std::move(tensors)) {
  Hdf5File skeleton(path_, state, shard_bytes(tensors_));
  for (TensorRecord& tensor : tensors_) tensor.offset = make_dataset(skeleton, tensor);
  skeleton.close();
  std::sort(tensors_.begin(), tensors_.end(),
            [](const TensorRecord& a, const TensorRecord& b) { return a.offset < b.offset; });
  file_ = FileDescriptor(::open(path_.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (file_.get() < 0) fail_errno(ErrorKind::Runtime, "cannot open", path_);
  size_ = size_of_file(file_, path_);
}

void ShardWriter::hash_up_to(std::int64_t end) {
  std::vector<char> piece(usize(std::clamp<std::int64_t>(end - at_, 0, piece_bytes)));
  while (at_ < end) {
    const std::int64_t got = read_at(file_, path_, piece.data(), std::min(isize(piece.size()), end - at_), at_);
    if (got == 0) fail(ErrorKind::Runtime, "{}: is shorter than what was written to it", path_.string());
    file_hash_.add(piece.data(), got);
    at_ += got;
  }
}

void ShardWriter::write(const void* data, std::int64_t bytes) {
  require(due_ < tensors_.size(), "{}: has all its tensors already", path_.string());
  TensorRecord& tensor = tensors_[due_];
  if (at_ < tensor.offset) hash_up_to(tensor.offset);
  const std::int64_t end = tensor.offset + tensor.bytes();
  require(bytes <= end - at_, "{}: more bytes are written than {} has", path_.string(), tensor.path);
  const auto* from = static_cast<const char*>(data);
  for (const std::int64_t stop = at_ + bytes; at_ < stop;) {
    const std::int64_t now = std::min(piece_bytes, stop - at_);
    tensor_hash_.add(from, now);
    file_hash_.add(from, now);
    write_at(file_, path_, from, now, at_);
    note_bytes_moved(now);
    from += now;
    at_ += now;
    if (at_ - started_ >= flight_bytes) {
      // Only a hint: where a file system has no such call, fsync does all of it at the end.
      ::sync_file_range(file_.get(), started_, at_ - started_, SYNC_FILE_RANGE_WRITE);
      started_ = at_;
    }
  }
  if (at_ < end) return;
  tensor.hash = std::exchange(tensor_hash_, Hash64Stream()).result();
  ++due_;
}

FileRecord ShardWriter::finish(int rank) {
  require(due_ == tensors_.size(), "{}: not all of its tensors were written", path_.string());
  hash_up_to(size_);
  // Gives back what was reserved and is not needed.
  if (::ftruncate(file_.get(), size_) != 0) fail_errno(ErrorKind::Runtime, "cannot write", path_);
  sync_file(file_, path_);  // HDF5 never does
  return {name_, size_, file_hash_.result(), rank};
}

}  // namespace switchyard::checkpoint
