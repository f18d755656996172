#include "trainer/checkpoint/tensor_stream.h"

#include "comm/base/ids.h"
#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/names.h"

#include <algorithm>
#include <memory>

#include <fcntl.h>

namespace switchyard::checkpoint {
namespace {

constexpr std::int64_t piece_bytes = 256 << 10;  // stays in the second-level cache while it is hashed and copied

}  // namespace

void stream_record(const std::filesystem::path& folder, const TensorRecord& record,
                   const std::function<void(const void* data, std::int64_t bytes)>& take) {
  const std::filesystem::path path = folder / record.file;
  const FileDescriptor file = open_plain_file(path);
  // Only a hint: the disk may read ahead of what is asked for.
  ::posix_fadvise(file.get(), record.offset, record.bytes(), POSIX_FADV_SEQUENTIAL);
  const auto piece = std::make_unique<char[]>(usize(piece_bytes));
  Hash64Stream hash;
  for (std::int64_t done = 0; done < record.bytes();) {
    const std::int64_t wanted = std::min(piece_bytes, record.bytes() - done);
    if (read_at(file, path, piece.get(), wanted, record.offset + done) != wanted) {
      fail(ErrorKind::Data, "{}: ends inside {}", path.string(), describe(record.name, record.kind, record.owner));
    }
    hash.add(piece.get(), wanted);
    take(piece.get(), wanted);
    done += wanted;
  }
  if (hash.result() != record.hash) {
    fail(ErrorKind::Data, "{}: {} is damaged: its XXH3-64 is {}, the manifest says {}", path.string(),
         describe(record.name, record.kind, record.owner), to_hex(hash.result()), to_hex(record.hash));
  }
}

}  // namespace switchyard::checkpoint
