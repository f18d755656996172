// tokenizer.json, and the model file beside it that it names.
#pragma once

#include "data/tokenizer/tokenizer.h"

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace switchyard {

inline constexpr const char* kTokenizerName = "tokenizer.json";
inline constexpr const char* kTokenizerModelName = "tokenizer.model";

// `model`: a serialized SentencePiece model with byte pieces. Throws Error(Data) that begins with `file` where it is
// not.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::string_view model, const std::string& file);

// Writes tokenizer.json to `folder`, and tokenizer.model where `model` is not empty.
void write_tokenizer(const std::filesystem::path& folder, const Tokenizer& tokenizer, std::string_view model);

}  // namespace switchyard
