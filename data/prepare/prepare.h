// Text files to a folder of token shards:
//
//   train-00000.sytok ...   tokens of the training text (data/loader/token_shard.h)
//   valid-00000.sytok ...   tokens of the text held out for validation
//   valid.txt               that text, byte for byte
//   tokenizer.json          and tokenizer.model, for data/tokenizer
//   meta.json               what is in the others (data/loader/meta.h)
//
// The input is read twice: to count it and to gather a sample for the tokenizer, then to write. The same input and
// options give the same bytes in every file.
#pragma once

#include "data/loader/meta.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {

struct PrepareOptions {
  std::vector<std::filesystem::path> inputs;  // files, or folders of files
  std::string tokenizer = "sentencepiece";    // or bytes
  std::optional<std::int64_t> vocab;          // sentencepiece: 4096 where not given; bytes has 257
  std::filesystem::path out;
  std::optional<double> valid_fraction;  // of the text; where not given 0.02, but no more than about 1 MiB
  std::uint64_t seed = 1;                // of the choice of the held-out text
  std::int64_t shard_tokens = std::int64_t{1} << 26;
  bool force = false;  // replace what an earlier prepare wrote to `out`
};

struct PrepareProgress {
  const char* phase;  // "reading", "training the tokenizer", "writing"
  std::int64_t done;  // bytes of the input files
  std::int64_t total;
};

// Throws Error(Usage) for options that cannot be and for missing input, Error(Data) for input that cannot be used.
CorpusMeta prepare(const PrepareOptions& options, const std::function<void(const PrepareProgress&)>& progress = {});

}  // namespace switchyard
