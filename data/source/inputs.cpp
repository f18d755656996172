#include "data/source/inputs.h"

#include "comm/base/error.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <string_view>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using namespace std::string_view_literals;

struct Compression {
  std::string_view magic, name, command;
};
constexpr std::array kCompressions{
    Compression{"\x1f\x8b", "gzip", "gunzip"},
    Compression{"\xfd"
                "7zXZ",
                "xz", "unxz"},
    Compression{"\x28\xb5\x2f\xfd", "zstd", "unzstd"},
    Compression{"BZh9", "bzip2", "bunzip2"},
    Compression{"PK\x03\x04", "zip", "unzip"},
};

InputFile look_at(const fs::path& path) {
  // The input is read twice: once to count and to train the tokenizer, once to write. A pipe cannot be.
  if (!fs::is_regular_file(path)) {
    fail(ErrorKind::Usage, "{}: not a regular file; the input is read twice, so a pipe or device cannot be used",
         path.string());
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(ErrorKind::Usage, "{}: cannot be read", path.string());
  std::array<char, 8> head{};
  in.read(head.data(), head.size());
  const std::string_view begins(head.data(), static_cast<std::size_t>(in.gcount()));
  for (const Compression& known : kCompressions) {
    if (begins.starts_with(known.magic)) {
      fail(ErrorKind::Data, "{}: compressed with {}; unpack it first ({})", path.string(), known.name, known.command);
    }
  }
  const fs::path extension = path.extension();
  const bool lines = extension == ".jsonl" || extension == ".ndjson";
  return {.path = path,
          .format = lines ? InputFormat::Jsonl : InputFormat::Text,
          .bytes = static_cast<std::int64_t>(fs::file_size(path))};
}

bool hidden(const fs::path& path) {
  return path.filename().string().starts_with('.');
}

std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  for (auto it = fs::recursive_directory_iterator(folder); it != fs::recursive_directory_iterator(); ++it) {
    if (hidden(it->path())) {
      if (it->is_directory()) it.disable_recursion_pending();
    } else if (it->is_regular_file()) {
      files.push_back(it->path());
    }
  }
  if (files.empty()) fail(ErrorKind::Usage, "{}: no file in this folder", folder.string());
  std::ranges::sort(files, {}, [](const fs::path& file) -> const std::string& { return file.native(); });
  return files;
}

}  // namespace

std::vector<InputFile> find_inputs(const std::vector<fs::path>& named) {
  std::vector<InputFile> inputs;
  for (const fs::path& path : named) {
    if (!fs::exists(path)) fail(ErrorKind::Usage, "{}: no such file or folder", path.string());
    if (!fs::is_directory(path)) {
      inputs.push_back(look_at(path));
    } else {
      for (const fs::path& file : files_below(path)) inputs.push_back(look_at(file));
    }
  }
  return inputs;
}

}  // namespace switchyard
