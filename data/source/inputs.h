// What `prepare` is asked to read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace switchyard {

enum class InputFormat {
  Text,   // the file is one document
  Jsonl,  // *.jsonl, *.ndjson: a document a line, {"text": "..."}; other members are left alone
};

struct InputFile {
  std::filesystem::path path;
  InputFormat format = InputFormat::Text;
  std::int64_t bytes = 0;
};

// The files named, and those below a folder that is named, in byte order of their paths; hidden ones (.NAME) inside
// folders are left out. Throws Error(Usage) where one is missing, cannot be read, or is not a regular file, and
// Error(Data) where one is compressed.
std::vector<InputFile> find_inputs(const std::vector<std::filesystem::path>& named);

}  // namespace switchyard
