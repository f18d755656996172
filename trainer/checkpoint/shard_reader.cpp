#include "trainer/checkpoint/shard_reader.h"

#include "comm/base/bytes_moved.h"
#include "comm/base/ids.h"
#include "trainer/checkpoint/names.h"

#include <algorithm>
#include <cstring>

#include <fcntl.h>

namespace switchyard::checkpoint {
namespace {

constexpr std::int64_t piece_bytes = 256 << 10;  // stays in the second-level cache between the read and the hash
constexpr std::int64_t ahead_bytes = 16 << 20;   // what the disk is asked for before it is wanted

std::string wrong_size(std::int64_t size, const FileRecord& file) {
  return fmt::format("has {} bytes, the manifest says {}: it is truncated or another file", size, file.bytes);
}
std::string wrong_hash(const Hash128& hash, const FileRecord& file) {
  return fmt::format("its XXH3-128 is {}, the manifest says {}: it is damaged or another file", to_hex(hash),
                     to_hex(file.hash));
}

// Reads [begin, end) in order, a piece at a time: into the places that `place` names, or else into a scratch piece;
// gives each piece to `see`. A file that shrinks meanwhile ends it early, and is no signal as it would be with mapped
// memory.
class SequentialReader {
 public:
  SequentialReader(const FileDescriptor& file, const std::filesystem::path& path) : file_(file), path_(path) {}

  // Into `into`, or where that is null into scratch memory. False where the file ends before.
  template <class See>
  bool read(std::int64_t begin, std::int64_t end, char* into, const See& see) {
    if (into == nullptr && scratch_.empty()) scratch_.resize(usize(piece_bytes));
    while (begin < end) {
      if (begin + ahead_bytes / 2 > asked_) {
        asked_ = std::max(asked_, begin);
        ::posix_fadvise(file_.get(), asked_, ahead_bytes, POSIX_FADV_WILLNEED);
        asked_ += ahead_bytes;
      }
      char* const to = into == nullptr ? scratch_.data() : into;
      const std::int64_t got = read_at(file_, path_, to, std::min(piece_bytes, end - begin), begin);
      if (got == 0) return false;
      note_bytes_moved(got);
      see(to, got);
      begin += got;
      if (into != nullptr) into += got;
    }
    return true;
  }

 private:
  const FileDescriptor& file_;
  const std::filesystem::path& path_;
  std::vector<char> scratch_;
  std::int64_t asked_ = 0;
};

// The record's XXH3-64; nothing where the file ends before the record does.
std::optional<std::uint64_t> hash_of_record(const FileDescriptor& file, const std::filesystem::path& path,
                                            const TensorRecord& record) {
  Hash64Stream hash;
  SequentialReader reader(file, path);
  const bool there = reader.read(record.offset, record.offset + record.bytes(), nullptr,
                                 [&](const char* data, std::int64_t bytes) { hash.add(data, bytes); });
  return there ? std::optional(hash.result()) : std::nullopt;
}

[[noreturn]] void fail_record(const std::filesystem::path& path, const TensorRecord& record) {
  throw Error(ErrorKind::Data,
              to_text(path, {"the bytes of a tensor do not have the XXH3-64 of the manifest", {&record}}));
}

// A stretch of the file and where its bytes go.
struct Stretch {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  char* to = nullptr;
};

std::vector<Stretch> stretches_of(const std::vector<WantedPart>& parts) {
  std::vector<Stretch> stretches;
  for (const WantedPart& part : parts) {
    const std::int64_t begin = part.record->offset + part.first * isize(sizeof(float));
    stretches.push_back({begin, begin + part.count * isize(sizeof(float)), reinterpret_cast<char*>(part.data)});
  }
  std::sort(stretches.begin(), stretches.end(), [](const Stretch& a, const Stretch& b) { return a.begin < b.begin; });
  return stretches;
}

// Everything in [begin, end), with stretches in their places and the rest in scratch memory. False where it ends early.
template <class See>
bool read_around(SequentialReader& reader, std::int64_t begin, std::int64_t end, const std::vector<Stretch>& stretches,
                 const See& see) {
  for (const Stretch& stretch : stretches) {
    if (!reader.read(begin, stretch.begin, nullptr, see) || !reader.read(stretch.begin, stretch.end, stretch.to, see)) {
      return false;
    }
    begin = stretch.end;
  }
  return reader.read(begin, end, nullptr, see);
}

// The same element is asked for twice, or two records lie over each other: then there is no one place for a byte.
bool overlap(const std::vector<Stretch>& stretches) {
  return std::adjacent_find(stretches.begin(), stretches.end(),
                            [](const Stretch& a, const Stretch& b) { return b.begin < a.end; }) != stretches.end();
}

void read_records(const FileDescriptor& file, const std::filesystem::path& path, const std::vector<WantedPart>& parts) {
  SequentialReader reader(file, path);
  for (auto part = parts.begin(); part != parts.end();) {
    const TensorRecord& record = *part->record;
    auto last = part;
    while (last != parts.end() && last->record == &record) ++last;
    const std::vector<Stretch> stretches = stretches_of({part, last});
    require(!overlap(stretches), "{}: a part of {} is asked for twice", path.string(), record.path);
    Hash64Stream hash;
    const bool there = read_around(reader, record.offset, record.offset + record.bytes(), stretches,
                                   [&](const char* data, std::int64_t bytes) { hash.add(data, bytes); });
    if (!there || hash.result() != record.hash) fail_record(path, record);
    part = last;
  }
}

void read_whole(const FileDescriptor& file, const std::filesystem::path& path, const FileRecord& record,
                const std::vector<WantedPart>& parts, const std::vector<Stretch>& stretches) {
  Hash128Stream hash;
  SequentialReader reader(file, path);
  read_around(reader, 0, record.bytes, stretches, [&](const char* data, std::int64_t bytes) { hash.add(data, bytes); });
  const Hash128 found = hash.result();
  if (found == record.hash) return;
  FileFault fault{wrong_hash(found, record), {}};
  for (const WantedPart& part : parts) {
    if (!fault.tensors.empty() && fault.tensors.back() == part.record) continue;
    if (hash_of_record(file, path, *part.record) != part.record->hash) fault.tensors.push_back(part.record);
  }
  throw Error(ErrorKind::Data, to_text(path, fault));
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
                        std::vector<const TensorRecord*> tensors) {
  const std::filesystem::path path = folder / file.name;
  FileFault fault;
  const FileDescriptor descriptor = open_plain_file(path);
  const std::int64_t size = size_of_file(descriptor, path);
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorRecord* a, const TensorRecord* b) { return a->offset < b->offset; });
  if (size != file.bytes) fault.what = wrong_size(size, file);

  Hash128Stream file_hash;
  SequentialReader reader(descriptor, path);
  std::int64_t at = 0;
  for (const TensorRecord* tensor : tensors) {
    std::optional<std::uint64_t> found;
    if (tensor->offset < at) {  // two lie over each other: no manifest that was written here has that
      found = hash_of_record(descriptor, path, *tensor);
    } else {
      Hash64Stream hash;
      reader.read(at, tensor->offset, nullptr, [&](const char* data, std::int64_t n) { file_hash.add(data, n); });
      at = tensor->offset + tensor->bytes();
      const bool there = reader.read(tensor->offset, at, nullptr, [&](const char* data, std::int64_t n) {
        file_hash.add(data, n);
        hash.add(data, n);
      });
      if (there) found = hash.result();
    }
    if (found != tensor->hash) fault.tensors.push_back(tensor);
  }
  reader.read(at, file.bytes, nullptr, [&](const char* data, std::int64_t n) { file_hash.add(data, n); });
  if (!fault.what.empty()) return fault;
  if (const Hash128 found = file_hash.result(); found != file.hash) {
    fault.what = wrong_hash(found, file);
  } else if (!fault.tensors.empty()) {
    fault.what = "it has the XXH3-128 of the manifest, and tensors in it have not their XXH3-64";
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

void read_shard(const std::filesystem::path& folder, const FileRecord& file, std::vector<WantedPart> parts,
                bool whole) {
  const std::filesystem::path path = folder / file.name;
  const FileDescriptor descriptor = open_plain_file(path);
  const std::int64_t size = size_of_file(descriptor, path);
  if (size != file.bytes) {
    FileFault fault{wrong_size(size, file), {}};
    for (const WantedPart& part : parts) {
      if (part.record->offset + part.record->bytes() > size) fault.tensors.push_back(part.record);
    }
    throw Error(ErrorKind::Data, to_text(path, fault));
  }
  std::sort(parts.begin(), parts.end(),
            [](const WantedPart& a, const WantedPart& b) { return a.record->offset < b.record->offset; });
  if (whole) {
    const std::vector<Stretch> stretches = stretches_of(parts);
    if (!overlap(stretches)) return read_whole(descriptor, path, file, parts, stretches);
    // A manifest that lays tensors over each other was not written here; its checksums still decide.
  }
  read_records(descriptor, path, parts);
}

Hash128 hash128_of_file(const FileDescriptor& file, const std::filesystem::path& path) {
  Hash128Stream hash;
  SequentialReader reader(file, path);
  reader.read(0, size_of_file(file, path), nullptr,
              [&](const char* data, std::int64_t bytes) { hash.add(data, bytes); });
  return hash.result();
}

}  // namespace switchyard::checkpoint
