#include "trainer/checkpoint/tensor_stream.h"

#include "comm/base/ids.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/shard_reader.h"

#include <algorithm>
#include <memory>

#include <xxhash.h>

namespace switchyard::checkpoint {

TensorSource::TensorSource(const std::filesystem::path& folder, const FileRecord& file)
    : path_(folder / file.name), piece_(usize(stream_piece_bytes / isize(sizeof(float)))) {
  const std::string fault = fault_of_size(folder, file);
  if (!fault.empty()) throw Error(ErrorKind::Data, fault);
  file_ = open_plain_file(path_);
}

void TensorSource::read(const TensorRecord& tensor, const std::function<void(std::span<const float>)>& use) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), XXH3_freeState);
  XXH3_64bits_reset(state.get());
  const std::int64_t bytes = tensor.bytes();
  for (std::int64_t done = 0; done < bytes;) {
    const std::int64_t wanted = std::min(stream_piece_bytes, bytes - done);
    if (read_at(file_, path_, piece_.data(), wanted, tensor.offset + done) != wanted) {
      fail(ErrorKind::Data, "{}: ends inside {}", path_.string(), describe(tensor.name, tensor.kind, tensor.owner));
    }
    XXH3_64bits_update(state.get(), piece_.data(), usize(wanted));
    use(std::span<const float>(piece_.data(), usize(wanted) / sizeof(float)));
    done += wanted;
  }
  const std::uint64_t hash = XXH3_64bits_digest(state.get());
  if (hash != tensor.hash) {
    fail(ErrorKind::Data, "{}: {} is damaged: its XXH3-64 is {}, the manifest says {}", path_.string(),
         describe(tensor.name, tensor.kind, tensor.owner), to_hex(hash), to_hex(tensor.hash));
  }
}

}  // namespace switchyard::checkpoint
