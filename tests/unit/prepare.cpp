// prepare: what is written is the text, once, split as asked; whole or not at all.
#include "data/prepare/prepare.h"

#include "comm/base/ids.h"
#include "data/loader/token_shard.h"
#include "data/prepare/encode_units.h"
#include "data/prepare/holdout.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/support/catch.h"
#include "tests/support/files.h"

#include <functional>
#include <map>
#include <set>

using namespace switchyard;
using switchyard::test::error_of;
using switchyard::test::read_file;
using switchyard::test::Scratch;
namespace fs = std::filesystem;

namespace {

// The documents' line numbers make every line its own.
std::string numbered_lines(int document, int lines) {
  std::string text;
  for (int line = 0; line < lines; ++line) {
    text += fmt::format("document {} has a line {} about wagons, tracks and \xc3\xa9quipes\n", document, line);
  }
  return text;
}

PrepareOptions options_for(const Scratch& scratch, std::vector<fs::path> inputs, const std::string& tokenizer) {
  PrepareOptions options;
  options.inputs = std::move(inputs);
  options.tokenizer = tokenizer;
  options.out = scratch.path() / "out";
  if (tokenizer == "sentencepiece") options.vocab = 400;
  return options;
}

// The split's spans, decoded.
std::vector<std::string> spans_of(const fs::path& folder, Split split) {
  const auto tokenizer = open_tokenizer(folder);
  const auto shards = TokenShards::open(folder, split);
  std::vector<std::int32_t> tokens(usize(shards->tokens())), span;
  shards->read(0, tokens);
  std::vector<std::string> spans;
  for (const std::int32_t token : tokens) {
    if (token == tokenizer->end_of_text()) {
      spans.push_back(tokenizer->decode(span));
      span.clear();
    } else {
      span.push_back(token);
    }
  }
  CHECK(span.empty());  // the stream ends with an end of text
  return spans;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts) all += part;
  return all;
}

std::multiset<std::string> lines_of(const std::string& text) {
  std::multiset<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    lines.insert(text.substr(at, end - at));
    at = end;
  }
  return lines;
}

std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    files[entry.path().filename().string()] = read_file(entry.path());
  }
  return files;
}

}  // namespace

TEST_CASE("every line is in one split, and the report counts what is there", "[prepare]") {
  for (const std::string tokenizer : {"bytes", "sentencepiece"}) {
    const Scratch scratch;
    std::string jsonl, all;
    for (int document = 0; document < 300; ++document) {
      const std::string text = numbered_lines(document, 1 + document % 5);
      std::string escaped = text;
      for (std::size_t at; (at = escaped.find('\n')) != std::string::npos;) escaped.replace(at, 1, "\\n");
      jsonl += "{\"text\": \"" + escaped + "\"}\n";
      all += text;
    }
    all += numbered_lines(1000, 3000);
    PrepareOptions options = options_for(
        scratch, {scratch.write("a.jsonl", jsonl), scratch.write("b.txt", numbered_lines(1000, 3000))}, tokenizer);
    options.valid_fraction = 0.1;
    options.shard_tokens = 20'000;
    const CorpusMeta meta = prepare(options);

    const auto train = spans_of(options.out, Split::Train), valid = spans_of(options.out, Split::Valid);
    CHECK((lines_of(joined(train) + joined(valid)) == lines_of(all)));
    CHECK((joined(valid) == read_file(options.out / kValidTextName)));
    CHECK(meta.documents == 301);
    CHECK(meta.train.bytes == std::ssize(joined(train)));
    CHECK(meta.valid.bytes == std::ssize(joined(valid)));
    CHECK(meta.train.spans == std::ssize(train));
    CHECK(meta.valid.spans == std::ssize(valid));
    CHECK(meta.train.shards > 1);
    const double share = static_cast<double>(meta.valid.bytes) / static_cast<double>(all.size());
    CHECK(share > 0.05);
    CHECK(share < 0.15);
    // No span mixes documents, and the small ones that were not held out are whole.
    const std::set<std::string> whole(train.begin(), train.end());
    std::int64_t unbroken = 0;
    for (int document = 0; document < 300; ++document)
      unbroken += whole.contains(numbered_lines(document, 1 + document % 5));
    CHECK(unbroken > 240);
    const CorpusMeta read = read_meta(options.out);
    CHECK(read.train.tokens == meta.train.tokens);
    CHECK(read.vocab == meta.vocab);
    CHECK_FALSE(fs::exists(scratch.path() / "out.partial"));
  }
}

TEST_CASE("the same text and seed give the same bytes, another seed another split", "[prepare]") {
  const Scratch scratch;
  PrepareOptions options = options_for(scratch, {scratch.write("a.txt", numbered_lines(1, 4000))}, "sentencepiece");
  prepare(options);
  const auto first = files_of(options.out);
  CHECK(first.size() == 6);  // train, valid, valid.txt, tokenizer.json, tokenizer.model, meta.json
  options.force = true;
  prepare(options);
  CHECK((files_of(options.out) == first));
  options.seed = 2;
  prepare(options);
  CHECK((files_of(options.out).at(kValidTextName) != first.at(kValidTextName)));
}

TEST_CASE("held-out text does not teach the tokenizer", "[prepare]") {
  const Scratch scratch;
  const fs::path file = scratch.write("a.txt", numbered_lines(1, 4000));
  PrepareOptions options = options_for(scratch, {file}, "sentencepiece");
  prepare(options);
  const auto first = files_of(options.out);
  // The same text with the held-out part scrambled, byte for byte in place, trains the same tokenizer.
  std::string text = read_file(file);
  for (const std::string& span : spans_of(options.out, Split::Valid)) {
    const std::size_t at = text.find(span);
    REQUIRE(at != std::string::npos);
    for (std::size_t i = 0; i < span.size(); ++i) {
      if (span[i] >= 'a' && span[i] <= 'z') text[at + i] = 'z';
    }
  }
  options.force = true;
  options.inputs = {scratch.write("b.txt", text)};
  prepare(options);
  CHECK((files_of(options.out).at("tokenizer.model") == first.at("tokenizer.model")));
  CHECK((files_of(options.out).at("train-00000.sytok") == first.at("train-00000.sytok")));
  CHECK((files_of(options.out).at(kValidTextName) != first.at(kValidTextName)));
}

TEST_CASE("the held-out part is spread evenly and has the size asked for", "[prepare]") {
  for (const std::int64_t units : {1, 2, 3, 50, 999, 1000, 12345}) {
    for (const std::int64_t held : {0, 1, 2, 17, 50, 999}) {
      if (held > units) continue;
      const Holdout holdout(units, held, 3);
      std::int64_t count = 0, gap = 0, widest = 0;
      for (std::int64_t unit = 0; unit < units; ++unit) {
        gap = holdout.holds(unit) ? 0 : gap + 1;
        widest = std::max(widest, gap);
        count += holdout.holds(unit);
      }
      CHECK(count == held);
      if (held > 0) CHECK(widest <= 2 * (units / held + 1));
    }
  }
  CHECK(units_to_hold(1000, 0.02) == 20);
  CHECK(units_to_hold(10, 0.001) == 1);
  CHECK(units_to_hold(10, 0.999) == 9);
  CHECK(units_to_hold(1, 0.5) == 0);
  CHECK(units_to_hold(1000, 0) == 0);
}

TEST_CASE("no validation split where none is asked for or the text is too small", "[prepare]") {
  const Scratch scratch;
  PrepareOptions options = options_for(scratch, {scratch.write("a.txt", "a few words")}, "bytes");
  const CorpusMeta tiny = prepare(options);
  CHECK(tiny.valid.tokens == 0);
  CHECK(tiny.train.tokens == 12);
  CHECK(TokenShards::open(options.out, Split::Valid)->tokens() == 0);
  options.inputs = {scratch.write("b.txt", numbered_lines(1, 1000))};
  options.valid_fraction = 0;
  options.force = true;
  CHECK(prepare(options).valid.tokens == 0);
  // Where nothing is said, two per cent.
  options.valid_fraction.reset();
  const CorpusMeta meta = prepare(options);
  CHECK(meta.valid.bytes > meta.train.bytes / 100);
  CHECK(meta.valid.bytes < meta.train.bytes / 30);
}

TEST_CASE("options that cannot be are refused before anything is written", "[prepare]") {
  const Scratch scratch;
  const fs::path file = scratch.write("a.txt", numbered_lines(1, 10));
  const auto refused = [&](const std::function<void(PrepareOptions&)>& change) {
    PrepareOptions options = options_for(scratch, {file}, "bytes");
    change(options);
    const test::Told told = error_of([&] { prepare(options); });
    CHECK_FALSE(fs::exists(scratch.path() / "out"));
    CHECK_FALSE(fs::exists(scratch.path() / "out.partial"));
    return told.exit_code;
  };
  CHECK(refused([](PrepareOptions& o) { o.tokenizer = "words"; }) == 2);
  CHECK(refused([](PrepareOptions& o) { o.vocab = 300; }) == 2);
  CHECK(refused([](PrepareOptions& o) { o.tokenizer = "sentencepiece", o.vocab = 100; }) == 2);
  CHECK(refused([](PrepareOptions& o) { o.valid_fraction = 1; }) == 2);
  CHECK(refused([](PrepareOptions& o) { o.valid_fraction = std::nan(""); }) == 2);
  CHECK(refused([](PrepareOptions& o) { o.inputs = {}; }) == 2);
  CHECK(refused([](PrepareOptions& o) { o.inputs.emplace_back("/nowhere.txt"); }) == 2);
  CHECK(refused([](PrepareOptions& o) { o.out = ""; }) == 2);
  CHECK(refused([&](PrepareOptions& o) { o.inputs = {scratch.path()}; }) == 2);  // the output lies within it
  CHECK(refused([&](PrepareOptions& o) { o.inputs = {scratch.write("empty.txt", "")}; }) == 65);
  CHECK(refused([&](PrepareOptions& o) { o.inputs = {scratch.write("bad.jsonl", "{}")}; }) == 65);
}

TEST_CASE("an existing folder is replaced only when asked, and only if prepare wrote it", "[prepare]") {
  const Scratch scratch;
  PrepareOptions options = options_for(scratch, {scratch.write("a.txt", numbered_lines(1, 100))}, "bytes");
  fs::create_directory(options.out);  // empty: taken over
  prepare(options);
  const auto before = files_of(options.out);
  const test::Told told = error_of([&] { prepare(options); });
  CHECK(told.exit_code == 2);
  CHECK(told.message.find("--force") != std::string::npos);
  CHECK((files_of(options.out) == before));

  options.force = true;
  options.out = options.out / "";  // a trailing slash is the same folder
  prepare(options);
  CHECK((files_of(options.out) == before));

  scratch.write("out/notes.txt", "mine");
  CHECK(error_of([&] { prepare(options); }).message.find("notes.txt") != std::string::npos);
  CHECK(files_of(options.out).contains("notes.txt"));
  options.out = scratch.write("file", "x");
  CHECK(error_of([&] { prepare(options); }).exit_code == 2);
}

TEST_CASE("a failed or killed prepare leaves nothing that opens", "[prepare]") {
  const Scratch scratch;
  const fs::path file = scratch.write("a.txt", numbered_lines(1, 1000));
  PrepareOptions options = options_for(scratch, {file}, "bytes");
  // The file grows between the two readings.
  const test::Told told = error_of([&] {
    prepare(options, [&](const PrepareProgress& now) {
      if (std::string_view(now.phase) == "reading" && now.done == now.total)
        std::ofstream(file, std::ios::app) << "more\n";
    });
  });
  CHECK(told.exit_code == 65);
  CHECK(told.message.find("changed while it was read") != std::string::npos);
  CHECK_FALSE(fs::exists(options.out));
  CHECK_FALSE(fs::exists(scratch.path() / "out.partial"));

  // What a killed one leaves, and a running one.
  fs::create_directory(scratch.path() / "out.partial");
  scratch.write("out.partial/train-00000.sytok", "half");
  CHECK(error_of([&] { TokenShards::open(scratch.path() / "out.partial"); }).exit_code == 65);
  std::int64_t locked = 0;
  prepare(options, [&](const PrepareProgress&) { locked += error_of([&] { prepare(options); }).exit_code == 2; });
  CHECK(locked > 0);
  CHECK(fs::exists(options.out / kMetaName));
  CHECK_FALSE(fs::exists(scratch.path() / "out.partial"));
}

TEST_CASE("tokens do not hang on the number of threads", "[prepare]") {
  std::vector<Unit> units;
  for (int i = 0; i < 40; ++i) units.push_back({numbered_lines(i, i % 7), i});
  const auto tokenizer = make_byte_tokenizer();
  const auto one = encode_units(*tokenizer, units, 1);
  CHECK((encode_units(*tokenizer, units, 5) == one));
  CHECK(tokenizer->decode(one[6]) == units[6].text);
}
