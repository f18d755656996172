// Reading text and JSONL in units.
#include "comm/base/error.h"
#include "data/source/inputs.h"
#include "data/source/unit_reader.h"
#include "data/tokenizer/utf8.h"
#include "tests/support/catch.h"
#include "tests/support/files.h"

#include <map>

using namespace switchyard;
using switchyard::test::error_of;
using switchyard::test::Scratch;
namespace fs = std::filesystem;

namespace {

struct Read {
  std::map<std::int64_t, std::string> documents;
  std::vector<std::string> units;
  std::int64_t bytes_read = 0, counted = 0;
};

Read read_all(const std::vector<fs::path>& paths, std::int64_t unit_bytes) {
  Read all;
  UnitReader reader(find_inputs(paths), unit_bytes);
  for (Unit unit; reader.next(unit);) {
    all.documents[unit.document] += unit.text;
    all.units.push_back(unit.text);
  }
  all.bytes_read = reader.bytes_read();
  all.counted = reader.documents();
  return all;
}

// Lines of characters of one to four bytes.
std::string many_lines(std::size_t bytes) {
  const std::string letters[] = {"a", "b ", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
  std::string text;
  for (std::uint64_t state = 1; text.size() < bytes;) {
    state = state * 6364136223846793005 + 1442695040888963407;
    text += (state >> 60) == 0 ? "\n" : letters[(state >> 33) % 5];
  }
  return text;
}

}  // namespace

TEST_CASE("a text larger than any buffer comes back whole, in units cut between characters", "[source]") {
  const Scratch scratch;
  const std::string text = many_lines(3'500'000);
  const fs::path file = scratch.write("long.txt", text);
  for (const std::int64_t unit_bytes : {61, 1024, 65536, 5'000'000}) {
    const Read all = read_all({file}, unit_bytes);
    REQUIRE(all.documents.size() == 1);
    CHECK((all.documents.at(0) == text));
    CHECK(all.bytes_read == std::ssize(text));
    std::size_t longest = 0, divided = 0;
    for (const std::string& unit : all.units) {
      longest = std::max(longest, unit.size());
      divided += (static_cast<unsigned char>(unit[0]) & 0xC0) == 0x80;
    }
    CHECK(longest <= static_cast<std::size_t>(unit_bytes));
    CHECK(divided == 0);
  }
}

TEST_CASE("units end at a line end, else at a space, else between characters", "[source]") {
  CHECK(unit_length("short", 10) == 5);
  CHECK(unit_length("0123456\n89abc", 10) == 8);
  CHECK(unit_length("0\n23456789abc", 10) == 10);  // the line end lies in the first half
  CHECK(unit_length("0123456 89abc", 10) == 7);    // a space begins the next unit, as it begins a piece
  CHECK(unit_length("012345678\xc3\xa9", 10) == 9);
  CHECK(unit_length("01234567\xf0\x9f\x98\x80", 10) == 8);
  CHECK(unit_length(std::string(20, '\x80'), 10) == 10);  // not UTF-8: anywhere
}

TEST_CASE("UTF-8 is told from other bytes, for every code point", "[source]") {
  for (std::uint32_t point = 0; point < 0x120000; ++point) {
    const std::string text = test::utf8(point);
    const bool valid = point < 0x110000 && !(point >= 0xD800 && point < 0xE000);
    if (utf8_length(text) != (valid ? text.size() : 0)) FAIL("code point " << point);
    if (utf8_length(text.substr(0, text.size() - 1)) != 0) FAIL("code point " << point << " cut short");
  }
  for (const char* overlong : {"\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\x80", "\xff"}) {
    CHECK(utf8_length(overlong) == 0);
  }
}

TEST_CASE("JSONL: one document a line, blank lines and lines without text skipped", "[source]") {
  const Scratch scratch;
  const fs::path file = scratch.write("a.jsonl",
                                      "{\"text\": \"one\\nline \\u20ac\"}\n\n"
                                      "  {\"id\": 7, \"text\": \"two\", \"meta\": {\"text\": 3}}\r\n"
                                      "{\"text\": \"\"}\n"
                                      "{\"text\": \"three\"}");
  const Read all = read_all({file}, 64);
  CHECK(all.counted == 3);
  CHECK(all.documents == std::map<std::int64_t, std::string>{{0, "one\nline \xe2\x82\xac"}, {1, "two"}, {2, "three"}});
  CHECK(all.bytes_read == static_cast<std::int64_t>(fs::file_size(file)));
  const Read one = read_all({scratch.write("b.jsonl", "{\"text\": \"" + std::string(5000, 'x') + "\"}\n")}, 64);
  CHECK(one.units.size() == 79);
  CHECK(one.documents.at(0) == std::string(5000, 'x'));
}

TEST_CASE("JSONL that is not what it should be is told with file and line", "[source]") {
  const Scratch scratch;
  const auto told = [&](const std::string& line) {
    const fs::path file = scratch.write("bad.jsonl", "{\"text\": \"fine\"}\n\n" + line + "\n");
    return error_of([&] { read_all({file}, 64); });
  };
  const auto place = (scratch.path() / "bad.jsonl").string() + ":3: ";
  const std::pair<const char*, const char*> cases[] = {
      {"{\"text\": \"open", "not valid JSON"},
      {"just words", "not valid JSON"},
      {"{\"text\": \"\xff\"}", "not valid JSON"},
      {"{\"text\": \"\\ud800\"}", "not valid JSON"},
      {"{\"text\": \"a\"} {\"text\": \"b\"}", "not valid JSON"},
      {"[\"text\"]", "must be an object"},
      {"{\"Text\": \"a\"}", "no \"text\""},
      {"{\"text\": 5}", "not a string but number"},
      {"{\"text\": null}", "not a string but null"},
  };
  for (const auto& [line, why] : cases) {
    const test::Told error = told(line);
    INFO(line << " -> " << error.message);
    CHECK(error.exit_code == 65);
    CHECK(error.message.starts_with(place));
    CHECK(error.message.find(why) != std::string::npos);
  }
  CHECK(told("{\"text\": \"fine\"}").exit_code == 0);
}

TEST_CASE("a folder stands for its files, in the order of their names", "[source]") {
  const Scratch scratch;
  fs::create_directories(scratch.path() / "c/z");
  scratch.write("c/b.txt", "B");
  scratch.write("c/z/0.jsonl", "{\"text\": \"Z\"}");
  scratch.write("c/a.md", "A");
  scratch.write("c/.hidden", "H");
  scratch.write("c/empty.txt", "");
  const Read all = read_all({scratch.path() / "c"}, 64);
  CHECK(all.documents == std::map<std::int64_t, std::string>{{0, "A"}, {1, "B"}, {2, "Z"}});
}

TEST_CASE("input that cannot be read is refused", "[source]") {
  const Scratch scratch;
  CHECK(error_of([&] { find_inputs({scratch.path() / "none.txt"}); }).exit_code == 2);
  CHECK(error_of([&] { find_inputs({scratch.path()}); }).exit_code == 2);  // an empty folder
  CHECK(error_of([&] { find_inputs({"/dev/null"}); }).exit_code == 2);
  const test::Told error = error_of([&] { find_inputs({scratch.write("a.txt", "\x1f\x8b\x08...")}); });
  CHECK(error.exit_code == 65);
  CHECK(error.message.find("gunzip") != std::string::npos);
}
