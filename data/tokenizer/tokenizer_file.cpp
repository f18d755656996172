#include "data/tokenizer/tokenizer_file.h"

#include "comm/base/error.h"
#include "data/loader/durable.h"

#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>
#include <xxhash.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string checksum(std::string_view bytes) {
  return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()));
}

std::string read_whole(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) fail(ErrorKind::Data, "{}: cannot be read", file.string());
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::unique_ptr<Tokenizer> make(const json& object, const fs::path& file) {
  const auto kind = object.at("kind").get<std::string>();
  if (kind == "bytes") return make_byte_tokenizer();
  if (kind != "sentencepiece") {
    fail(ErrorKind::Data, "{}: tokenizer kind '{}'; this program knows bytes and sentencepiece", file.string(), kind);
  }
  const fs::path model_file = file.parent_path() / object.at("file").get<std::string>();
  const std::string model = read_whole(model_file);
  if (checksum(model) != object.at("xxh3").get<std::string>()) {
    fail(ErrorKind::Data, "{}: damaged, or not the model that {} describes: its checksum is {}", model_file.string(),
         file.string(), checksum(model));
  }
  return make_sentencepiece_tokenizer(model, model_file.string());
}

}  // namespace

void write_tokenizer(const fs::path& folder, const Tokenizer& tokenizer, std::string_view model) {
  json object = {{"kind", tokenizer.kind()}, {"vocab", tokenizer.vocab()}, {"end_of_text", tokenizer.end_of_text()}};
  if (!model.empty()) {
    write_durably(folder / kTokenizerModelName, model);
    object["file"] = kTokenizerModelName;
    object["xxh3"] = checksum(model);
  }
  write_durably(folder / kTokenizerName, object.dump(2) + "\n");
}

std::unique_ptr<Tokenizer> open_tokenizer(const fs::path& path) {
  const fs::path file = fs::is_directory(path) ? path / kTokenizerName : path;
  const std::string text = read_whole(file);
  try {
    const json object = json::parse(text);
    std::unique_ptr<Tokenizer> tokenizer = make(object, file);
    if (object.at("vocab").get<std::int64_t>() != tokenizer->vocab() ||
        object.at("end_of_text").get<std::int64_t>() != tokenizer->end_of_text()) {
      fail(ErrorKind::Data, "{}: says vocab {} and end_of_text {}, and the tokenizer has {} and {}", file.string(),
           object.at("vocab").dump(), object.at("end_of_text").dump(), tokenizer->vocab(), tokenizer->end_of_text());
    }
    return tokenizer;
  } catch (const json::exception& error) {
    fail(ErrorKind::Data, "{}: damaged: {}", file.string(), error.what());
  }
}

}  // namespace switchyard
