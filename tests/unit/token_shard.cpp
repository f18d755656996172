// Token shards: what is written is read; what is damaged is told.
#include "data/loader/token_shard.h"

#include "comm/base/ids.h"
#include "data/loader/meta.h"
#include "data/loader/shard_header.h"
#include "data/loader/shard_writer.h"
#include "tests/support/catch.h"
#include "tests/support/files.h"

#include <cstring>

#include <xxhash.h>

using namespace switchyard;
using switchyard::test::error_of;
using switchyard::test::read_file;
using switchyard::test::Scratch;
namespace fs = std::filesystem;

namespace {

std::vector<std::int32_t> some_tokens(std::size_t count, std::int32_t vocab) {
  std::vector<std::int32_t> tokens(count);
  for (std::size_t i = 0; i < count; ++i)
    tokens[i] = static_cast<std::int32_t>(i * 2654435761U % static_cast<unsigned>(vocab));
  return tokens;
}

// A folder with the given tokens as its training split, in shards of `tokens_a_shard`.
void write_folder(const fs::path& folder, const std::vector<std::int32_t>& tokens, std::int64_t vocab,
                  std::int64_t tokens_a_shard, std::size_t chunk = 7) {
  ShardWriter writer(folder, Split::Train, vocab, tokens_a_shard);
  for (std::size_t at = 0; at < tokens.size(); at += chunk) {
    writer.write(std::span(tokens).subspan(at, std::min(chunk, tokens.size() - at)));
  }
  writer.finish();
  write_meta(folder, {.tokenizer = "bytes",
                      .vocab = vocab,
                      .documents = 1,
                      .seed = 1,
                      .train = {.bytes = 1, .tokens = writer.tokens(), .spans = 1, .shards = writer.shards()},
                      .valid = {}});
}

// One shard, and ways to damage it.
struct Victim {
  explicit Victim(std::int64_t vocab = 300, std::size_t count = 1000) {
    write_folder(scratch.path(), some_tokens(count, static_cast<std::int32_t>(vocab)), vocab, 1 << 20);
    good = read_file(file());
  }
  fs::path file() const { return scratch.path() / "train-00000.sytok"; }
  test::Told open(const std::string& bytes) const {
    scratch.write("train-00000.sytok", bytes);
    return error_of([&] { TokenShards::open(file()); });
  }
  Scratch scratch;
  std::string good;
};

// The bytes with the header's fields changed and its checksum made right again: a header that lies.
std::string with_header(std::string bytes, std::size_t at, std::uint64_t value, std::size_t width) {
  std::memcpy(bytes.data() + at, &value, width);
  const std::uint64_t checksum = XXH3_64bits(bytes.data(), 56);
  std::memcpy(bytes.data() + 56, &checksum, 8);
  return bytes;
}

void check_refused(const Victim& victim, const std::string& bytes, const std::string& why) {
  const test::Told told = victim.open(bytes);
  INFO(told.message);
  CHECK(told.exit_code == 65);
  CHECK(told.message.starts_with(victim.file().string() + ": "));
  CHECK(told.message.find(why) != std::string::npos);
}

}  // namespace

TEST_CASE("tokens come back over any cut into shards, in both widths", "[token_shard]") {
  for (const std::int32_t vocab : {65536, 65537}) {
    for (const std::int64_t tokens_a_shard : {29, 1000}) {
      const Scratch scratch;
      const std::vector<std::int32_t> tokens = some_tokens(203, vocab);
      write_folder(scratch.path(), tokens, vocab, tokens_a_shard);
      const auto shards = TokenShards::open(scratch.path());
      REQUIRE(shards->tokens() == 203);
      CHECK(shards->vocab() == vocab);
      CHECK(fs::file_size(scratch.path() / "train-00000.sytok") ==
            64 + static_cast<std::size_t>(std::min<std::int64_t>(tokens_a_shard, 203)) * (vocab <= 65536 ? 2 : 4));
      bool equal = true;
      for (std::int64_t first = 0; first <= 203; first += 3) {
        for (std::int64_t count = 0; first + count <= 203; count += 11) {
          std::vector<std::int32_t> read(usize(count));
          shards->read(first, read);
          equal &= std::equal(read.begin(), read.end(), tokens.begin() + first);
        }
      }
      CHECK(equal);
      std::vector<std::int32_t> beyond(4);
      CHECK(error_of([&] { shards->read(200, beyond); }).exit_code == 1);
      CHECK(error_of([&] { shards->read(-1, beyond); }).exit_code == 1);
    }
  }
}

TEST_CASE("the layout on disk is the one that is written down", "[token_shard]") {
  const Scratch scratch;
  write_folder(scratch.path(), {1, 2, 256}, 257, 100);
  const std::string bytes = read_file(scratch.path() / "train-00000.sytok");
  using namespace std::string_literals;
  CHECK(bytes.substr(0, 32) == "\x89SYTOK\r\n\x01\0\0\0\x02\0\0\0\x03\0\0\0\0\0\0\0\x01\x01\0\0\0\0\0\0"s);
  CHECK(bytes.substr(40, 16) == std::string(16, '\0'));
  CHECK(bytes.substr(64) == "\x01\0\x02\0\0\x01"s);
}

TEST_CASE("a shard that is cut short or longer is refused", "[token_shard]") {
  const Victim victim;
  CHECK(victim.open(victim.good).exit_code == 0);
  check_refused(victim, "", "empty file");
  for (const std::size_t size : {1, 7, 8, 9, 40, 63}) check_refused(victim, victim.good.substr(0, size), "truncated");
  for (const std::size_t size : {64, 65, 66, 1000, 2062, 2063}) {
    check_refused(victim, victim.good.substr(0, size), "truncated token shard: the header says 1000 tokens of 2 bytes");
  }
  check_refused(victim, victim.good + "x", "1 bytes too many");
  check_refused(victim, victim.good + victim.good, "bytes too many");
}

TEST_CASE("a foreign file is refused", "[token_shard]") {
  const Victim victim;
  check_refused(victim, std::string(5000, '\0'), "not a token shard");
  check_refused(victim, "In the beginning was the word", "not a token shard");
  check_refused(victim, "x", "not a token shard");
  std::string text_mode = victim.good;  // CR LF became LF
  text_mode.erase(6, 1);
  check_refused(victim, text_mode, "not a token shard");
}

TEST_CASE("every flipped bit is told", "[token_shard]") {
  const Victim victim;
  for (std::size_t at = 0; at < victim.good.size(); at += at < 64 ? 1 : 97) {
    for (int bit = 0; bit < 8; bit += at < 64 ? 1 : 3) {
      std::string bytes = victim.good;
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
      if (victim.open(bytes).exit_code != 65) FAIL("bit " << bit << " of byte " << at << " goes unseen");
    }
  }
  std::string version = victim.good;
  version[8] = 2;
  check_refused(victim, version, "format version 2; this program reads version 1");
  std::string payload = victim.good;
  payload[64 + 500] = static_cast<char>(payload[64 + 500] ^ 1);
  check_refused(victim, payload, "the checksum of its 1000 tokens does not match");
}

TEST_CASE("a header that lies with a right checksum is refused", "[token_shard]") {
  const Victim victim;
  check_refused(victim, with_header(victim.good, 16, 1001, 8), "truncated");
  check_refused(victim, with_header(victim.good, 16, 999, 8), "2 bytes too many");
  check_refused(victim, with_header(victim.good, 16, (std::uint64_t{1} << 63) + 1000, 8), "truncated");  // wraps around
  check_refused(victim, with_header(victim.good, 16, ~std::uint64_t{0}, 8), "truncated");
  check_refused(victim, with_header(victim.good, 12, 4, 4), "truncated");
  check_refused(victim, with_header(victim.good, 12, 0, 4), "0 bytes a token");
  check_refused(victim, with_header(victim.good, 12, 3, 4), "3 bytes a token");
  check_refused(victim, with_header(victim.good, 24, 0, 8), "vocabulary of 0");
  check_refused(victim, with_header(victim.good, 24, ~std::uint64_t{0}, 8), "vocabulary of");
  check_refused(victim, with_header(victim.good, 32, 5, 8), "checksum of its 1000 tokens");
}

TEST_CASE("a token beyond the vocabulary is told with its position", "[token_shard]") {
  for (const std::int64_t vocab : {300, 70'000}) {
    const Victim victim(vocab, 10'000);
    const std::size_t width = vocab <= 65536 ? 2 : 4;
    for (const std::size_t position : {0, 1, 4095, 4096, 7777, 9999}) {
      std::string bytes = victim.good;
      const auto token = static_cast<std::uint32_t>(vocab);  // the first that is too large
      std::memcpy(bytes.data() + 64 + position * width, &token, width);
      const std::uint64_t checksum = XXH3_64bits(bytes.data() + 64, bytes.size() - 64);
      check_refused(victim, with_header(bytes, 32, checksum, 8),
                    fmt::format("token {} at position {} is beyond the vocabulary of {}", vocab, position, vocab));
    }
  }
  const Scratch scratch;
  ShardWriter writer(scratch.path(), Split::Train, 300, 100);
  CHECK(error_of([&] { writer.write(std::vector<std::int32_t>{1, 300}); }).exit_code == 1);
  CHECK(error_of([&] { writer.write(std::vector<std::int32_t>{-1}); }).exit_code == 1);
}

TEST_CASE("a folder whose files do not belong together is refused", "[token_shard]") {
  const Scratch scratch;
  const auto open = [&] { return error_of([&] { TokenShards::open(scratch.path()); }); };
  CHECK(open().exit_code == 65);  // not a prepared folder
  write_folder(scratch.path(), some_tokens(100, 300), 300, 40);
  CHECK(open().exit_code == 0);
  CHECK(error_of([&] { TokenShards::open(scratch.path() / "none"); }).exit_code == 2);
  CHECK(TokenShards::open(scratch.path(), Split::Valid)->tokens() == 0);

  const std::string middle = read_file(scratch.path() / "train-00001.sytok");
  fs::remove(scratch.path() / "train-00001.sytok");
  CHECK(open().message.find("train-00001.sytok: missing") != std::string::npos);
  scratch.write("train-00001.sytok", read_file(scratch.path() / "train-00002.sytok"));  // shorter, and whole
  CHECK(open().message.find("hold 80 tokens") != std::string::npos);
  {
    const Scratch other;
    write_folder(other.path(), some_tokens(40, 257), 257, 40);
    scratch.write("train-00001.sytok", read_file(other.path() / "train-00000.sytok"));
    CHECK(open().message.find("vocabulary 257, and") != std::string::npos);
  }
  scratch.write("train-00001.sytok", middle);
  CHECK(open().exit_code == 0);

  const std::string meta = read_file(scratch.path() / kMetaName);
  for (const std::string& damaged :
       {std::string("{"), std::string(), std::string("[]"), meta.substr(0, meta.size() / 2),
        std::string("{\"format\": 2}"), std::string("{\"format\": \"1\"}")}) {
    scratch.write(kMetaName, damaged);
    CHECK(open().exit_code == 65);
  }
}

TEST_CASE("a shard that is not finished has no shard's name", "[token_shard]") {
  const Scratch scratch;
  {
    ShardWriter writer(scratch.path(), Split::Train, 300, 100);
    writer.write(some_tokens(150, 300));
  }  // left without finish(), as by an exception
  CHECK(fs::exists(scratch.path() / "train-00000.sytok"));
  CHECK_FALSE(fs::exists(scratch.path() / "train-00001.sytok"));
}
