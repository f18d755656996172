// Tokenizers: nothing is lost, whatever the bytes; the same text gives the same tokenizer.
#include "data/tokenizer/tokenizer.h"

#include "data/tokenizer/sentencepiece.h"
#include "data/tokenizer/tokenizer_file.h"
#include "tests/support/catch.h"
#include "tests/support/files.h"

#include <random>

#include <sentencepiece_processor.h>

using namespace switchyard;
using switchyard::test::error_of;
using switchyard::test::Scratch;
namespace fs = std::filesystem;

namespace {

// Text with structure enough for some hundred pieces: words of two scripts, indentation, digits, markup.
std::vector<std::string> sample() {
  const std::string stems[] = {"wagon",  "track", "switch",        "yard",
                               "signal", "Gleis", "\xc3\x89quipe", "\xd0\xbf\xd1\x83\xd1\x82\xd1\x8c"};
  const std::string ends[] = {"", "s", "ing", "ed", "en", "er"};
  std::mt19937 draw(7);
  std::vector<std::string> texts;
  for (int t = 0; t < 40; ++t) {
    std::string text;
    for (int w = 0; w < 120; ++w) {
      if (w % 12 == 0) text += "\n    ";
      text += " " + stems[draw() % 8] + ends[draw() % 6];
      if (w % 17 == 0) text += " <s> </s> " + std::to_string(draw() % 1000) + ",\t";
    }
    texts.push_back(text);
  }
  return texts;
}

const std::string& model() {
  static const std::string trained = train_sentencepiece(sample(), 512);
  return trained;
}

std::string shown(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x} ", static_cast<unsigned char>(c));
  return hex;
}

// Empty where `text` comes back as it is, in tokens that are in the vocabulary and not the end of text.
std::string loss(const Tokenizer& tokenizer, const std::string& text) {
  const std::vector<std::int32_t> tokens = tokenizer.encode(text);
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= tokenizer.vocab() || token == tokenizer.end_of_text()) {
      return fmt::format("token {} for {}", token, shown(text));
    }
  }
  const std::string back = tokenizer.decode(tokens);
  return back == text ? "" : fmt::format("{}came back as {}", shown(text), shown(back));
}

void check_lossless(const Tokenizer& tokenizer, const std::string& text) {
  if (const std::string lost = loss(tokenizer, text); !lost.empty()) FAIL(lost);
}

const std::vector<std::string>& nasty() {
  using namespace std::string_literals;
  static const std::vector<std::string> texts = {
      ""s,
      " "s,
      "  "s,
      "   a   b  "s,
      "\n"s,
      "\n\n \n"s,
      "\t\ttab\t"s,
      "\r\n"s,
      "\0nul\0"s,
      "\x7f\x01\x1f"s,
      "\xe2\x96\x81"s,  // SentencePiece's own sign for the space
      " \xe2\x96\x81 \xe2\x96\x81\xe2\x96\x81x"s,
      "\xe2\x96\x85"s,  // its unknown
      "\xe2\x81\x87"s,
      "\xef\xbf\xbd"s,  // the replacement character
      "<s></s><unk><pad><|endoftext|>"s,
      "<0x41><0x0A>"s,
      "\xef\xbb\xbf byte order mark"s,
      "e\xcc\x81 \xc3\xa9 \xef\xac\x81"s,
      "\xff\xfe\x80\xc3"s,
      "\xc3"s,
      "\xf0\x9f\x98"s,
      "a\xe2\x96 \xe2\x96\x81\xe2"s,
      "\xed\xa0\x80"s,  // a surrogate
      "\xc0\x80"s,      // overlong
      "\xf4\x90\x80\x80"s,
      "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa9"s,
      "\xe3\x80\x80\xc2\xa0"s,
  };
  return texts;
}

void check_nasty(const Tokenizer& tokenizer) {
  for (const std::string& text : nasty()) check_lossless(tokenizer, text);
  check_lossless(tokenizer, std::string(200'000, 'x'));
  check_lossless(tokenizer, std::string(70'000, ' '));
  check_lossless(tokenizer, std::string(65'535, 'y').append("\xe2\x82\xac"));

  std::mt19937 draw(1);
  const std::string words = sample()[0];
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    for (std::size_t n = draw() % 30; n > 0; --n) {
      switch (draw() % 4) {
        case 0:
          text += static_cast<char>(draw() % 256);
          break;
        case 1:
          text += nasty()[draw() % nasty().size()];
          break;
        case 2:
          text += words.substr(draw() % words.size(), draw() % 12);
          break;
        default:
          text += test::utf8(static_cast<std::uint32_t>(draw() % 0x110000));
          break;
      }
    }
    check_lossless(tokenizer, text);
  }
}

// Planted faults: what a tokenizer would do that leaves the sign for the space to SentencePiece, or drops stray bytes.
class Lossy final : public Tokenizer {
 public:
  explicit Lossy(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}
  std::string kind() const override { return "lossy"; }
  std::int64_t vocab() const override { return 257; }
  std::int32_t end_of_text() const override { return 256; }
  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::string changed(text);
    for (std::size_t at = 0; (at = changed.find(from_, at)) != std::string::npos; at += to_.size()) {
      changed.replace(at, from_.size(), to_);
    }
    return make_byte_tokenizer()->encode(changed);
  }
  std::string decode(const std::vector<std::int32_t>& tokens) const override {
    return make_byte_tokenizer()->decode(tokens);
  }

 private:
  std::string from_, to_;
};

}  // namespace

TEST_CASE("bytes: a token a byte", "[tokenizer]") {
  const auto tokenizer = make_byte_tokenizer();
  CHECK(tokenizer->vocab() == 257);
  CHECK(tokenizer->end_of_text() == 256);
  CHECK(tokenizer->encode("a\xff") == std::vector<std::int32_t>{97, 255});
  CHECK(tokenizer->decode({97, 256, 255, -1, 300}) == "a\xff");
  check_nasty(*tokenizer);
}

TEST_CASE("sentencepiece: lossless for any bytes", "[tokenizer]") {
  const auto tokenizer = make_sentencepiece_tokenizer(model(), "model");
  CHECK(tokenizer->vocab() <= 512);
  CHECK(tokenizer->vocab() > 300);
  check_nasty(*tokenizer);
  for (std::uint32_t point = 0; point < 0x110000; ++point) {
    // Every code point below the ideographs and around the surrogates, and a part of the rest.
    if (point >= 0x3400 && point % 13 != 0 && (point < 0xD7F0 || point > 0x10000)) continue;
    check_lossless(*tokenizer, fmt::format("a{} ", test::utf8(point)));
  }
}

TEST_CASE("the check of losslessness catches planted losses", "[tokenizer]") {
  const auto caught = [](const Tokenizer& tokenizer) {
    std::int64_t count = 0;
    for (const std::string& text : nasty()) count += loss(tokenizer, text).empty() ? 0 : 1;
    return count;
  };
  CHECK(caught(Lossy("\xe2\x96\x81", " ")) == 3);
  CHECK(caught(Lossy("\xff", "\xef\xbf\xbd")) == 1);
  CHECK(caught(Lossy("  ", " ")) == 2);
  CHECK(caught(*make_byte_tokenizer()) == 0);
}

TEST_CASE("sentencepiece: words of the sample become pieces, and blocks cut at line ends change nothing",
          "[tokenizer]") {
  const auto tokenizer = make_sentencepiece_tokenizer(model(), "model");
  CHECK(tokenizer->encode(" wagons switching").size() <= 4);
  const std::string text = sample()[1];
  const auto whole = tokenizer->encode(text);
  CHECK(whole.size() * 2 < text.size());
  for (std::size_t cut = text.find('\n'); cut != std::string::npos; cut = text.find('\n', cut + 1)) {
    auto parts = tokenizer->encode(text.substr(0, cut + 1));
    const auto rest = tokenizer->encode(text.substr(cut + 1));
    parts.insert(parts.end(), rest.begin(), rest.end());
    CHECK((parts == whole));
  }
}

TEST_CASE("sentencepiece: words encoded one by one give what SentencePiece gives for the whole line", "[tokenizer]") {
  sentencepiece::SentencePieceProcessor whole;
  REQUIRE(whole.LoadFromSerializedProto(model()).ok());
  const auto tokenizer = make_sentencepiece_tokenizer(model(), "model");
  const std::string source = sample()[2];
  std::mt19937 draw(3);
  for (int round = 0; round < 500; ++round) {
    std::string line;
    for (std::size_t n = draw() % 12; n > 0; --n) {
      line += source.substr(draw() % source.size(), draw() % 15) + std::string(draw() % 4, ' ');
    }
    std::erase_if(line, [](char c) { return c < ' ' || c > '~'; });
    std::vector<int> expected;
    REQUIRE(whole.Encode(line, &expected).ok());
    if (tokenizer->encode(line) != expected) FAIL(line);
  }
}

TEST_CASE("sentencepiece: the same sample gives the same model", "[tokenizer]") {
  CHECK((train_sentencepiece(sample(), 512) == model()));
  auto other = sample();
  other.resize(other.size() / 2);
  CHECK_FALSE((train_sentencepiece(other, 512) == model()));
}

TEST_CASE("sentencepiece: small, strange and impossible samples", "[tokenizer]") {
  for (const std::string text :
       {"a", "ab", " ", "<s></s><unk>\t<0x41>", "\xff\xfe hello \xff", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}) {
    INFO(text);
    const auto tokenizer = make_sentencepiece_tokenizer(train_sentencepiece({text}, 4096), "model");
    check_lossless(*tokenizer, text + "other \xff");
  }
  // More different letters than the vocabulary could hold.
  std::string letters;
  for (std::uint32_t point = 0x4E00; point < 0x5E00; ++point) letters += test::utf8(point) + "a ";
  const auto tokenizer =
      make_sentencepiece_tokenizer(train_sentencepiece({letters, std::string(50'000, 'q')}, 400), "model");
  CHECK(tokenizer->vocab() <= 400);
  check_lossless(*tokenizer, letters);

  CHECK(error_of([] { train_sentencepiece({"\n\xff"}, 4096); }).exit_code == 65);
  CHECK(error_of([] { train_sentencepiece({"abc"}, 300); }).exit_code == 2);
  CHECK(error_of([] { train_sentencepiece({"abc"}, 1 << 24); }).exit_code == 2);
}

TEST_CASE("tokenizer.json describes what lies beside it", "[tokenizer]") {
  const Scratch scratch;
  const auto pieces = make_sentencepiece_tokenizer(model(), "model");
  write_tokenizer(scratch.path(), *pieces, model());
  for (const fs::path& path : {scratch.path(), scratch.path() / kTokenizerName}) {
    const auto opened = open_tokenizer(path);
    CHECK(opened->kind() == "sentencepiece");
    CHECK(opened->vocab() == pieces->vocab());
    CHECK(opened->encode(" wagons") == pieces->encode(" wagons"));
  }

  const auto open_with = [&](const std::string& json) {
    scratch.write(kTokenizerName, json);
    return error_of([&] { open_tokenizer(scratch.path()); });
  };
  const std::string good = test::read_file(scratch.path() / kTokenizerName);
  CHECK(open_with(good).exit_code == 0);
  CHECK(open_with("{\"kind\": \"bytes\", \"vocab\": 257, \"end_of_text\": 256}").exit_code == 0);
  CHECK(open_with("{\"kind\": \"bytes\", \"vocab\": 256, \"end_of_text\": 256}").exit_code == 65);
  CHECK(open_with("{\"kind\": \"words\", \"vocab\": 257, \"end_of_text\": 256}").message.find("'words'") !=
        std::string::npos);
  CHECK(open_with("{\"kind\": 3}").exit_code == 65);
  CHECK(open_with("{").exit_code == 65);
  CHECK(open_with("").exit_code == 65);

  scratch.write(kTokenizerName, good);
  std::string damaged = model();
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 1);
  scratch.write(kTokenizerModelName, damaged);
  const test::Told told = error_of([&] { open_tokenizer(scratch.path()); });
  CHECK(told.exit_code == 65);
  CHECK(told.message.find(kTokenizerModelName) != std::string::npos);
  fs::remove(scratch.path() / kTokenizerModelName);
  CHECK(error_of([&] { open_tokenizer(scratch.path()); }).exit_code == 65);
  CHECK(error_of([&] { open_tokenizer(scratch.path() / "none"); }).exit_code == 65);
  CHECK(error_of([&] { make_sentencepiece_tokenizer("rubbish", "model"); }).exit_code == 65);
}
