// Text is cut into what SentencePiece keeps and what it would change: line ends and other control characters, its own
// sign for the space (U+2581), and bytes that are not UTF-8 are spelt in byte pieces here. Decoding joins the pieces'
// bytes here too, as SentencePiece's own decoder would replace stray bytes.
#include "comm/base/error.h"
#include "data/tokenizer/tokenizer_file.h"
#include "data/tokenizer/utf8.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <unordered_map>

#include <sentencepiece_processor.h>

namespace switchyard {
namespace {

constexpr std::string_view kSpaceSign = "\xe2\x96\x81";
// Longer runs are encoded in parts, to bound what SentencePiece holds at once.
constexpr std::size_t kLongestRun = 1 << 16;

// How many bytes at the start of `text` SentencePiece keeps as they are, where it keeps those from `first_kept` to '~'.
std::size_t kept_prefix(std::string_view text, unsigned char first_kept) {
  std::size_t at = 0;
  while (at < text.size()) {
    const auto c = static_cast<unsigned char>(text[at]);
    if (c >= first_kept && c <= '~') {  // almost all of most text
      ++at;
      continue;
    }
    const std::size_t length = utf8_length(text.substr(at));
    if (length <= 1 || text.substr(at, length) == kSpaceSign) break;
    at += length;
  }
  return at;
}

// The length of the first word of `run`, spaces before it included. The trainer splits text where a space follows
// another letter, so no piece reaches across that place, and words may be encoded one by one.
std::size_t word_length(std::string_view run) {
  const std::size_t letter = run.find_first_not_of(' ');
  return letter == std::string_view::npos ? run.size() : std::min(run.find(' ', letter), run.size());
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string_view model, const std::string& file) {
    if (const auto status = processor_.LoadFromSerializedProto(model); !status.ok()) {
      fail(ErrorKind::Data, "{}: not a SentencePiece model: {}", file, status.ToString());
    }
    byte_tokens_.fill(-1);
    for (int token = 0; token < processor_.GetPieceSize(); ++token) {
      std::string text;
      if (processor_.IsByte(token)) {
        const unsigned char byte = byte_of(processor_.IdToPiece(token), file);
        byte_tokens_[byte] = token;
        text.push_back(static_cast<char>(byte));
      } else if (!processor_.IsControl(token) && !processor_.IsUnknown(token)) {
        text = with_spaces(processor_.IdToPiece(token));
      }
      texts_.push_back(std::move(text));
    }
    if (std::ranges::find(byte_tokens_, -1) != byte_tokens_.end()) {
      fail(ErrorKind::Data, "{}: a SentencePiece model without byte pieces cannot keep every text", file);
    }
    // A sample without a space gives a model without one, which would spell its sign in bytes.
    if (processor_.PieceToId(kSpaceSign) == processor_.unk_id()) first_kept_ = ' ' + 1;
    if (processor_.eos_id() < 0) fail(ErrorKind::Data, "{}: a SentencePiece model without an end of text", file);
  }

  std::string kind() const override { return "sentencepiece"; }
  std::int64_t vocab() const override { return processor_.GetPieceSize(); }
  std::int32_t end_of_text() const override { return processor_.eos_id(); }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> tokens;
    KnownWords known;
    while (!text.empty()) {
      std::size_t run = kept_prefix(text.substr(0, kLongestRun + 4), first_kept_);
      if (run > kLongestRun) run = utf8_cut(text, kLongestRun);
      if (run == 0) {
        tokens.push_back(byte_tokens_[static_cast<unsigned char>(text[0])]);
        text.remove_prefix(1);
        continue;
      }
      encode_run(text.substr(0, run), known, tokens);
      text.remove_prefix(run);
    }
    return tokens;
  }

  std::string decode(const std::vector<std::int32_t>& tokens) const override {
    std::string text;
    for (const std::int32_t token : tokens) {
      if (token >= 0 && token < vocab()) text += texts_[static_cast<std::size_t>(token)];
    }
    return text;
  }

 private:
  // Text says most of its words again and again, and looking one up takes a tenth of the time of encoding it.
  using KnownWords = std::unordered_map<std::string_view, std::vector<int>>;

  void encode_run(std::string_view run, KnownWords& known, std::vector<std::int32_t>& tokens) const {
    while (!run.empty()) {
      const std::string_view word = run.substr(0, word_length(run));
      const auto [entry, is_new] = known.try_emplace(word);
      if (is_new) {
        const auto status = processor_.Encode(word, &entry->second);
        require(status.ok(), "SentencePiece could not encode {} bytes: {}", word.size(), status.ToString());
      }
      tokens.insert(tokens.end(), entry->second.begin(), entry->second.end());
      run.remove_prefix(word.size());
    }
  }

  // "<0x0A>" to 10.
  static unsigned char byte_of(const std::string& piece, const std::string& file) {
    unsigned value = 256;
    if (piece.size() == 6) std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
    if (value > 255) fail(ErrorKind::Data, "{}: the byte piece '{}' names no byte", file, piece);
    return static_cast<unsigned char>(value);
  }

  static std::string with_spaces(std::string piece) {
    for (std::size_t at = 0; (at = piece.find(kSpaceSign, at)) != std::string::npos; ++at) {
      piece.replace(at, kSpaceSign.size(), 1, ' ');
    }
    return piece;
  }

  sentencepiece::SentencePieceProcessor processor_;
  std::vector<std::string> texts_;  // the bytes that each token stands for
  std::array<std::int32_t, 256> byte_tokens_{};
  unsigned char first_kept_ = ' ';
};

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::string_view model, const std::string& file) {
  return std::make_unique<SentencePieceTokenizer>(model, file);
}

}  // namespace switchyard
