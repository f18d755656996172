// meta.json: what a prepared folder holds. It is written last, so a folder without one is not complete.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace switchyard {

inline constexpr const char* kMetaName = "meta.json";
inline constexpr const char* kValidTextName = "valid.txt";  // the held-out text, byte for byte

struct SplitMeta {
  std::int64_t bytes = 0;   // of text; ends of text are not counted
  std::int64_t tokens = 0;  // ends of text included
  std::int64_t spans = 0;   // contiguous stretches of a document, each followed by one end of text
  std::int64_t shards = 0;  // files
};

struct CorpusMeta {
  std::string tokenizer;  // kind
  std::int64_t vocab = 0;
  std::int64_t documents = 0;  // of both splits together
  std::uint64_t seed = 0;      // of the choice of the held-out text
  SplitMeta train;
  SplitMeta valid;
};

void write_meta(const std::filesystem::path& folder, const CorpusMeta& meta);
// Throws Error(Usage) where there is no such folder, Error(Data) where its meta.json is missing, damaged or of another
// version.
CorpusMeta read_meta(const std::filesystem::path& folder);

}  // namespace switchyard
