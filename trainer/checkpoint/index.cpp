#include "trainer/checkpoint/index.h"

#include "trainer/checkpoint/hdf5_file.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/shard_reader.h"

namespace switchyard::checkpoint {

FileRecord write_index(const std::filesystem::path& folder, const Manifest& manifest) {
  Hdf5File index(folder / index_name, manifest.state, 0);
  for (const TensorRecord& tensor : manifest.tensors) {
    index.make_groups_above(tensor.path);
    hdf5_require(H5Lcreate_external(tensor.file.c_str(), tensor.path.c_str(), index.get(), tensor.path.c_str(),
                                    H5P_DEFAULT, H5P_DEFAULT) >= 0,
                 ErrorKind::Runtime, "cannot link {} in {}", tensor.path, index.path().string());
  }
  index.close();
  const FileDescriptor file = open_plain_file(index.path());
  sync_file(file, index.path());
  return {index_name, size_of_file(file, index.path()), hash128_of_file(file, index.path()), 0};
}

}  // namespace switchyard::checkpoint
