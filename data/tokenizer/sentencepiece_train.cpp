#include "comm/base/error.h"
#include "data/tokenizer/sentencepiece.h"
#include "data/tokenizer/utf8.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <sentencepiece_trainer.h>

namespace switchyard {
namespace {

// The trainer skips longer sentences, so lines are cut to this length.
constexpr std::size_t kLongestSentence = 4000;
// The trainer takes a tab for a boundary that no piece crosses: what it must not learn is replaced by one.
constexpr char kBoundary = '\t';

// Letters by falling count, then by their bytes.
std::vector<std::string> by_frequency(const std::vector<std::string>& sample) {
  std::unordered_map<std::string_view, std::int64_t> counts;
  for (const std::string& text : sample) {
    for (std::string_view rest = text; !rest.empty();) {
      const std::size_t length = utf8_length(rest);
      if (length > 0) ++counts[rest.substr(0, length)];
      rest.remove_prefix(std::max<std::size_t>(length, 1));
    }
  }
  std::vector<std::pair<std::int64_t, std::string_view>> sorted;
  for (const auto& [letter, count] : counts) sorted.emplace_back(-count, letter);
  std::ranges::sort(sorted);
  std::vector<std::string> letters;
  for (const auto& [count, letter] : sorted) letters.emplace_back(letter);
  return letters;
}

// U+2581 stands for the space inside SentencePiece, U+2585 for the unknown piece inside its trainer; NUL ends its
// strings.
bool reserved(std::string_view letter) {
  return letter == "\xe2\x96\x81" || letter == "\xe2\x96\x85" || (letter.size() == 1 && letter[0] < ' ');
}

// Lines of the sample, in which every letter is one of `kept`.
class Sentences final : public sentencepiece::SentenceIterator {
 public:
  Sentences(std::vector<std::string> sample, const std::vector<std::string>& kept) : sample_(std::move(sample)) {
    for (const std::string& letter : kept) kept_.emplace(letter, true);
    Next();
  }

  bool done() const override { return done_; }
  const std::string& value() const override { return sentence_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    do {
      if (at_ == sample_.size()) {
        done_ = true;
        return;
      }
      const std::string_view rest = std::string_view(sample_[at_]).substr(offset_);
      std::size_t length = std::min(rest.find('\n'), rest.size());
      const bool ends_line = length <= kLongestSentence && length < rest.size();
      if (length > kLongestSentence) length = utf8_cut(rest, kLongestSentence);
      set(rest.substr(0, length));
      offset_ += length + (ends_line ? 1 : 0);
      if (offset_ == sample_[at_].size()) {
        sample_[at_++] = std::string();  // the trainer keeps what it needs
        offset_ = 0;
      }
    } while (sentence_.empty());
  }

 private:
  void set(std::string_view line) {
    sentence_.clear();
    while (!line.empty()) {
      const std::size_t length = std::max<std::size_t>(utf8_length(line), 1);
      const std::string_view letter = line.substr(0, length);
      if (kept_.contains(letter)) {
        sentence_ += letter;
      } else if (!sentence_.empty() && sentence_.back() != kBoundary) {
        sentence_ += kBoundary;
      }
      line.remove_prefix(length);
    }
    if (sentence_ == std::string_view(&kBoundary, 1)) sentence_.clear();
  }

  std::vector<std::string> sample_;
  std::unordered_map<std::string_view, bool> kept_;
  std::size_t at_ = 0, offset_ = 0;
  std::string sentence_;
  bool done_ = false;
};

}  // namespace

void check_sentencepiece_vocab(std::int64_t vocab) {
  if (vocab < kSmallestPieceVocab || vocab > kLargestPieceVocab) {
    fail(ErrorKind::Usage, "a sentencepiece vocabulary of {}; it has {} to {} pieces", vocab, kSmallestPieceVocab,
         kLargestPieceVocab);
  }
}

std::string train_sentencepiece(std::vector<std::string> sample, std::int64_t vocab) {
  check_sentencepiece_vocab(vocab);
  // Half of what the bytes leave goes to single letters at most; rarer ones are spelt in bytes.
  std::vector<std::string> letters = by_frequency(sample);
  std::erase_if(letters, reserved);
  letters.resize(std::min(letters.size(), static_cast<std::size_t>(vocab - 258) / 2));
  if (letters.empty()) fail(ErrorKind::Data, "no text to train a tokenizer on");
  Sentences sentences(std::move(sample), letters);

  // No thread count and no random sampling enters: bpe is trained by one thread on all sentences given.
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(vocab)},
      {"hard_vocab_limit", "false"},
      {"character_coverage", "1.0"},
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"max_sentence_length", std::to_string(2 * kLongestSentence)},
      {"num_threads", "1"},
      {"unk_id", "0"},
      {"eos_id", "1"},
      {"eos_piece", "<|endoftext|>"},
      {"bos_id", "-1"},
      {"pad_id", "-1"},
      {"minloglevel", "2"},
  };
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &sentences, &model);
  if (!status.ok()) fail(ErrorKind::Runtime, "SentencePiece could not be trained: {}", status.ToString());
  return model;
}

}  // namespace switchyard
