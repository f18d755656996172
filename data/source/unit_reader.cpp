#include "data/source/unit_reader.h"

#include "comm/base/error.h"
#include "data/source/json_text.h"
#include "data/tokenizer/utf8.h"

namespace switchyard {

std::size_t unit_length(std::string_view text, std::size_t limit) {
  if (text.size() <= limit) return text.size();
  const std::string_view first = text.substr(0, limit);
  if (const auto end = first.rfind('\n'); end != std::string_view::npos && end >= limit / 2) return end + 1;
  if (const auto space = first.rfind(' '); space != std::string_view::npos && space > limit / 2) return space;
  return utf8_cut(text, limit);
}

UnitReader::UnitReader(std::vector<InputFile> inputs, std::int64_t unit_bytes)
    : inputs_(std::move(inputs)), unit_bytes_(static_cast<std::size_t>(unit_bytes)) {
  require(unit_bytes >= 8, "units of {} bytes", unit_bytes);
}

void UnitReader::open_file() {
  in_.open(inputs_[file_].path, std::ios::binary);
  if (!in_) fail(ErrorKind::Runtime, "{}: cannot be read", inputs_[file_].path.string());
  rest_.clear();
  given_ = 0;
  line_ = 0;
  in_document_ = false;
}

void UnitReader::close_file() {
  in_.close();
  in_.clear();
  ++file_;
}

bool UnitReader::next(Unit& unit) {
  while (file_ < inputs_.size()) {
    if (!in_.is_open()) open_file();
    if (inputs_[file_].format == InputFormat::Jsonl ? next_jsonl(unit) : next_text(unit)) return true;
    close_file();
  }
  return false;
}

bool UnitReader::next_text(Unit& unit) {
  // One character more than a unit, so that unit_length sees whether the text goes on and what it would divide.
  const std::size_t wanted = unit_bytes_ + 4;
  if (rest_.size() - given_ < wanted && in_) {
    constexpr std::size_t kBlock = 1 << 20;
    rest_.erase(0, given_);
    given_ = 0;
    const std::size_t had = rest_.size();
    rest_.resize(std::max(kBlock, wanted));
    in_.read(rest_.data() + had, static_cast<std::streamsize>(rest_.size() - had));
    if (in_.bad()) fail(ErrorKind::Runtime, "{}: cannot be read to its end", inputs_[file_].path.string());
    rest_.resize(had + static_cast<std::size_t>(in_.gcount()));
    bytes_read_ += in_.gcount();
  }
  const std::string_view text = std::string_view(rest_).substr(given_);
  if (text.empty()) return false;
  if (!in_document_) {
    in_document_ = true;
    ++documents_;
  }
  unit.text = text.substr(0, unit_length(text, unit_bytes_));
  unit.document = documents_ - 1;
  given_ += unit.text.size();
  return true;
}

bool UnitReader::read_document() {
  std::string line;
  while (std::getline(in_, line)) {
    ++line_;
    bytes_read_ += static_cast<std::int64_t>(line.size()) + (in_.eof() ? 0 : 1);
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      rest_ = text_of_json(line);
    } catch (const std::exception& error) {
      fail(ErrorKind::Data, "{}:{}: {}", inputs_[file_].path.string(), line_, error.what());
    }
    given_ = 0;
    if (rest_.empty()) continue;
    ++documents_;
    return true;
  }
  if (in_.bad()) fail(ErrorKind::Runtime, "{}: cannot be read to its end", inputs_[file_].path.string());
  return false;
}

bool UnitReader::next_jsonl(Unit& unit) {
  if (given_ == rest_.size() && !read_document()) return false;
  const std::string_view text = std::string_view(rest_).substr(given_);
  unit.text = text.substr(0, unit_length(text, unit_bytes_));
  unit.document = documents_ - 1;
  given_ += unit.text.size();
  return true;
}

}  // namespace switchyard
