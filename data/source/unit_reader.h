// Streams the input as units: stretches of a document of a limited size, which are tokenised, and held out for
// validation or not, each by itself. A file larger than memory is no matter; one line of JSONL must fit.
#pragma once

#include "data/source/inputs.h"

#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

struct Unit {
  std::string text;
  std::int64_t document = 0;  // counted from 0 over the whole input; documents without text are not counted
};

// Where a unit that begins `text` ends when it may have `limit` bytes: behind the last line end in its second half,
// else before the last space there, else between two characters. `text` itself where that is not longer than `limit`.
std::size_t unit_length(std::string_view text, std::size_t limit);

class UnitReader {
 public:
  UnitReader(std::vector<InputFile> inputs, std::int64_t unit_bytes);

  // False at the end of the last file. Throws Error(Data) with file and line where JSONL is not what it should be,
  // Error(Runtime) where a file cannot be read.
  bool next(Unit& unit);

  std::int64_t bytes_read() const { return bytes_read_; }  // of the files, up to the sum of InputFile::bytes
  std::int64_t documents() const { return documents_; }    // begun so far

 private:
  bool next_text(Unit& unit);
  bool next_jsonl(Unit& unit);
  bool read_document();  // the next line with text
  void open_file();
  void close_file();

  std::vector<InputFile> inputs_;
  std::size_t unit_bytes_;
  std::size_t file_ = 0;  // the one open, or to be opened next
  std::ifstream in_;
  std::string rest_;       // read, and not yet given out
  std::size_t given_ = 0;  // of rest_
  std::int64_t line_ = 0;
  bool in_document_ = false;
  std::int64_t documents_ = 0;
  std::int64_t bytes_read_ = 0;
};

}  // namespace switchyard
