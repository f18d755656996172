#include "data/prepare/prepare.h"

#include "comm/base/error.h"
#include "data/loader/durable.h"
#include "data/loader/shard_writer.h"
#include "data/prepare/encode_units.h"
#include "data/prepare/holdout.h"
#include "data/prepare/staged_folder.h"
#include "data/source/unit_reader.h"
#include "data/tokenizer/sentencepiece.h"
#include "data/tokenizer/tokenizer_file.h"

#include <algorithm>
#include <memory>
#include <span>
#include <thread>
#include <tuple>
#include <utility>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using Progress = std::function<void(const PrepareProgress&)>;

constexpr std::int64_t kPieceVocab = 4096;
// Training text that sentencepiece is trained on. More makes training slower and hardly changes the pieces.
constexpr std::int64_t kSampleBytesAPiece = 1024;
constexpr double kValidFraction = 0.02;
constexpr std::int64_t kValidBytes = 1 << 20;

bool is_ours(const std::string& name) {
  return name == kMetaName || name == kTokenizerName || name == kTokenizerModelName || name == kValidTextName ||
         name.ends_with(token_shard::kExtension);
}

void check(const PrepareOptions& options) {
  if (options.tokenizer != "bytes" && options.tokenizer != "sentencepiece") {
    fail(ErrorKind::Usage, "tokenizer '{}'; there are bytes and sentencepiece", options.tokenizer);
  }
  if (options.inputs.empty()) fail(ErrorKind::Usage, "no input file is named");
  if (options.out.empty()) fail(ErrorKind::Usage, "no output folder is named");
  const fs::path out = fs::weakly_canonical(options.out);
  for (const fs::path& input : options.inputs) {
    // Its own output would be read as text the next time.
    const fs::path folder = fs::weakly_canonical(input);
    if (fs::is_directory(folder) && std::ranges::mismatch(folder, out).in1 == folder.end()) {
      fail(ErrorKind::Usage, "{}: the output folder {} lies within this input folder", input.string(),
           options.out.string());
    }
  }
  if (options.valid_fraction && !(*options.valid_fraction >= 0 && *options.valid_fraction < 1)) {
    fail(ErrorKind::Usage, "a validation fraction of {}; it is at least 0 and less than 1", *options.valid_fraction);
  }
  const std::int64_t bytes_vocab = make_byte_tokenizer()->vocab();
  if (options.tokenizer == "bytes" && options.vocab.value_or(bytes_vocab) != bytes_vocab) {
    fail(ErrorKind::Usage, "the bytes tokenizer has a vocabulary of {}, and {} is asked for", bytes_vocab,
         *options.vocab);
  }
  if (options.tokenizer == "sentencepiece") check_sentencepiece_vocab(options.vocab.value_or(kPieceVocab));
}

// A unit is small enough that some hundreds are in any corpus, so that what is held out is drawn from all of it.
std::int64_t unit_bytes_for(std::int64_t total) {
  return std::clamp<std::int64_t>(total / 2048, 1 << 10, 1 << 16);
}

struct SampledUnit {
  std::int64_t number;
  std::string text;
};

struct Survey {
  std::int64_t units = 0;
  std::int64_t documents = 0;
  std::int64_t text_bytes = 0;
  std::vector<SampledUnit> sample;
};

// The first reading. Evenly spaced units, `sample_bytes` in all, are kept for the tokenizer.
Survey survey(UnitReader reader, std::int64_t total, std::int64_t sample_bytes, const Progress& progress) {
  Survey seen;
  const double step =
      std::min(1.0, static_cast<double>(sample_bytes) / static_cast<double>(std::max<std::int64_t>(total, 1)));
  std::int64_t sampled = 0;
  for (Unit unit; reader.next(unit); ++seen.units) {
    seen.text_bytes += std::ssize(unit.text);
    if (static_cast<double>(seen.units) * step >= static_cast<double>(sampled)) {
      if (sample_bytes > 0) seen.sample.push_back({seen.units, unit.text});
      ++sampled;
    }
    if (seen.units % 64 == 0) progress({"reading", reader.bytes_read(), total});
  }
  seen.documents = reader.documents();
  progress({"reading", total, total});
  return seen;
}

std::string train_on(std::vector<SampledUnit> sample, const Holdout& holdout, std::int64_t vocab) {
  std::vector<std::string> texts;
  for (SampledUnit& unit : sample) {
    if (!holdout.holds(unit.number)) texts.push_back(std::move(unit.text));
  }
  return train_sentencepiece(std::move(texts), vocab);
}

// One split as it is written: an end of text closes each span, which is what of a document follows without a gap.
class SplitWriter {
 public:
  SplitWriter(const fs::path& folder, Split split, const Tokenizer& tokenizer, std::int64_t shard_tokens)
      : shards_(folder, split, tokenizer.vocab(), shard_tokens), end_of_text_(tokenizer.end_of_text()) {}

  void write(std::int64_t number, const Unit& unit, const std::vector<std::int32_t>& tokens) {
    const bool follows = spans_ > 0 && unit.document == document_ && number == number_ + 1;
    if (!follows) {
      end_span();
      ++spans_;
    }
    shards_.write(tokens);
    bytes_ += std::ssize(unit.text);
    document_ = unit.document;
    number_ = number;
  }

  SplitMeta finish() {
    end_span();
    shards_.finish();
    return {.bytes = bytes_, .tokens = shards_.tokens(), .spans = spans_, .shards = shards_.shards()};
  }

 private:
  void end_span() {
    if (spans_ > 0) shards_.write(std::span(&end_of_text_, 1));
  }

  ShardWriter shards_;
  std::int32_t end_of_text_;
  std::int64_t bytes_ = 0, spans_ = 0;
  std::int64_t document_ = 0, number_ = 0;  // of the unit written last
};

// The second reading.
std::pair<SplitMeta, SplitMeta> write_splits(UnitReader reader, std::int64_t total, const Survey& seen,
                                             const Holdout& holdout, const Tokenizer& tokenizer,
                                             const PrepareOptions& options, const fs::path& folder,
                                             const Progress& progress) {
  SplitWriter train(folder, Split::Train, tokenizer, options.shard_tokens);
  SplitWriter valid(folder, Split::Valid, tokenizer, options.shard_tokens);
  DurableFile valid_text(folder / kValidTextName);
  const unsigned threads = std::max(1U, std::thread::hardware_concurrency());
  std::int64_t number = 0;
  for (bool more = true; more;) {
    constexpr std::size_t kBatch = 256;
    std::vector<Unit> units;
    for (Unit unit; units.size() < kBatch && (more = reader.next(unit));) units.push_back(std::move(unit));
    const auto tokens = encode_units(tokenizer, units, threads);
    for (std::size_t i = 0; i < units.size(); ++i, ++number) {
      const bool held = holdout.holds(number);
      (held ? valid : train).write(number, units[i], tokens[i]);
      if (held) valid_text.write(units[i].text);
    }
    progress({"writing", reader.bytes_read(), total});
  }
  valid_text.close();
  const std::pair splits(train.finish(), valid.finish());
  if (number != seen.units || splits.first.bytes + splits.second.bytes != seen.text_bytes) {
    fail(ErrorKind::Data, "the input changed while it was read: {} bytes of text, then {}", seen.text_bytes,
         splits.first.bytes + splits.second.bytes);
  }
  return splits;
}

}  // namespace

CorpusMeta prepare(const PrepareOptions& options, const Progress& told) {
  const Progress progress = told ? told : [](const PrepareProgress&) {};
  check(options);
  const std::vector<InputFile> inputs = find_inputs(options.inputs);
  std::int64_t total = 0;
  for (const InputFile& input : inputs) total += input.bytes;
  StagedFolder staged(options.out, options.force, is_ours);

  const bool pieces = options.tokenizer == "sentencepiece";
  const std::int64_t unit_bytes = unit_bytes_for(total);
  const std::int64_t piece_vocab = options.vocab.value_or(kPieceVocab);
  const std::int64_t sample_bytes = pieces ? kSampleBytesAPiece * piece_vocab : 0;
  Survey seen = survey(UnitReader(inputs, unit_bytes), total, sample_bytes, progress);
  if (seen.units == 0) fail(ErrorKind::Data, "there is no text in the input ({} files)", inputs.size());

  const double fraction = options.valid_fraction.value_or(
      std::min(kValidFraction, static_cast<double>(kValidBytes) / static_cast<double>(seen.text_bytes)));
  const Holdout holdout(seen.units, units_to_hold(seen.units, fraction), options.seed);
  std::string model;
  if (pieces) {
    progress({"training the tokenizer", 0, total});
    model = train_on(std::exchange(seen.sample, {}), holdout, piece_vocab);
  }
  const std::unique_ptr<Tokenizer> tokenizer =
      pieces ? make_sentencepiece_tokenizer(model, kTokenizerModelName) : make_byte_tokenizer();

  CorpusMeta meta{.tokenizer = tokenizer->kind(),
                  .vocab = tokenizer->vocab(),
                  .documents = seen.documents,
                  .seed = options.seed,
                  .train = {},
                  .valid = {}};
  std::tie(meta.train, meta.valid) =
      write_splits(UnitReader(inputs, unit_bytes), total, seen, holdout, *tokenizer, options, staged.path(), progress);
  write_tokenizer(staged.path(), *tokenizer, model);
  write_meta(staged.path(), meta);
  staged.commit();
  return meta;
}

}  // namespace switchyard
