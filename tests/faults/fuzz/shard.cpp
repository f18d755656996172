// Fuzzing of how a shard is read: any records, of any places and hashes, over any file. What is read is what the hashes
// are of, or nothing is; and no byte beyond the memory that was given is touched (the sanitizer sees to that).
#include "comm/base/error.h"
#include "trainer/checkpoint/shard_reader.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>

#include <fuzzer/FuzzedDataProvider.h>
#include <unistd.h>

using namespace switchyard;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  static const std::filesystem::path folder = [] {
    std::string name = "/dev/shm/switchyard-fuzz-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    return std::filesystem::path(name);
  }();
  const bool whole = input.ConsumeBool();
  const int count = input.ConsumeIntegralInRange(0, 5);
  std::vector<checkpoint::TensorRecord> records(static_cast<std::size_t>(count));
  std::vector<bool> right;
  for (checkpoint::TensorRecord& record : records) {
    record.name = "a";
    record.path = "/a";
    record.file = "file.h5";
    record.count = input.ConsumeIntegralInRange<std::int64_t>(1, 600);
    record.shape = {record.count};
    record.offset = input.ConsumeIntegralInRange<std::int64_t>(0, 4000);
    right.push_back(input.ConsumeBool());
  }
  const bool file_right = input.ConsumeBool();
  const std::string bytes = input.ConsumeRemainingBytesAsString();
  std::ofstream(folder / "file.h5", std::ios::binary | std::ios::trunc) << bytes;
  checkpoint::FileRecord file{"file.h5", static_cast<std::int64_t>(bytes.size()), checkpoint::hash128(bytes), 0};
  if (!file_right) file.hash.low ^= 1;

  std::vector<std::unique_ptr<float[]>> memory;
  std::vector<checkpoint::WantedPart> parts;
  for (std::size_t i = 0; i < records.size(); ++i) {
    checkpoint::TensorRecord& record = records[i];
    // As check_files() of the manifest sees to it.
    if (record.offset + record.bytes() > file.bytes) return 0;
    record.hash = checkpoint::hash64(bytes.data() + record.offset, record.bytes());
    if (!right[i]) record.hash ^= 1;
    memory.push_back(std::make_unique<float[]>(static_cast<std::size_t>(record.count)));
    parts.push_back({&record, 0, record.count, memory.back().get()});
  }
  try {
    checkpoint::read_shard(folder, file, parts, whole);
    for (const checkpoint::WantedPart& part : parts) {
      if (std::memcmp(part.data, bytes.data() + part.record->offset, static_cast<std::size_t>(part.record->bytes())) !=
          0) {
        std::abort();
      }
    }
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Data) std::abort();
  }
  return 0;
}
