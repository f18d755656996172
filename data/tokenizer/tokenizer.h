// Text to tokens and back.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string kind() const = 0;  // "bytes", "sentencepiece"
  virtual std::int64_t vocab() const = 0;
  virtual std::int32_t end_of_text() const = 0;
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  // Lossless for text that was encoded; bytes that do not form UTF-8 come back as they are.
  virtual std::string decode(const std::vector<std::int32_t>& tokens) const = 0;
};

std::unique_ptr<Tokenizer> make_byte_tokenizer();  // 256 bytes and end of text: 257
// The tokenizer that `prepare` left in a folder (tokenizer.json, tokenizer.model), or that such a file describes.
// Throws Error(Data) naming the file.
std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path& path);

}  // namespace switchyard
