#include "data/loader/meta.h"

#include "comm/base/error.h"
#include "data/loader/durable.h"

#include <fstream>

#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kFormat = 1;

json to_json(const SplitMeta& split) {
  return {{"bytes", split.bytes}, {"tokens", split.tokens}, {"spans", split.spans}, {"shards", split.shards}};
}

std::int64_t count_at(const json& object, const char* key) {
  const auto value = object.at(key).get<std::int64_t>();
  if (value < 0) throw std::out_of_range(fmt::format("{} is {}", key, value));
  return value;
}

SplitMeta split_of(const json& object) {
  return {.bytes = count_at(object, "bytes"),
          .tokens = count_at(object, "tokens"),
          .spans = count_at(object, "spans"),
          .shards = count_at(object, "shards")};
}

}  // namespace

void write_meta(const fs::path& folder, const CorpusMeta& meta) {
  const json object = {{"format", kFormat},           {"tokenizer", meta.tokenizer}, {"vocab", meta.vocab},
                       {"documents", meta.documents}, {"seed", meta.seed},           {"train", to_json(meta.train)},
                       {"valid", to_json(meta.valid)}};
  write_durably(folder / kMetaName, object.dump(2) + "\n");
}

CorpusMeta read_meta(const fs::path& folder) {
  if (!fs::is_directory(folder)) fail(ErrorKind::Usage, "{}: no such folder", folder.string());
  const fs::path file = folder / kMetaName;
  if (!fs::exists(file)) {
    fail(ErrorKind::Data, "{}: no {} in it, so it is not a folder that `switchyard prepare` finished", folder.string(),
         kMetaName);
  }
  std::ifstream in(file, std::ios::binary);
  try {
    const json object = json::parse(in);
    if (const auto format = object.at("format").get<int>(); format != kFormat) {
      fail(ErrorKind::Data, "{}: format {}; this program reads format {}: prepare the text again", file.string(),
           format, kFormat);
    }
    return {.tokenizer = object.at("tokenizer").get<std::string>(),
            .vocab = count_at(object, "vocab"),
            .documents = count_at(object, "documents"),
            .seed = object.at("seed").get<std::uint64_t>(),
            .train = split_of(object.at("train")),
            .valid = split_of(object.at("valid"))};
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail(ErrorKind::Data, "{}: damaged: {}", file.string(), error.what());
  }
}

}  // namespace switchyard
