// How far a long copy has come, for a person at a terminal: share, bytes, speed and the time that is left.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace switchyard {

// "  47 % ▕███▊    ▏ 1.2 GB of 2.5 GB  830.0 MB/s  0:02 left", at most `columns` wide.
std::string byte_bar(std::int64_t done, std::int64_t total, double seconds, int columns, bool colour);

// Nothing is written where the stream is no terminal that can draw.
class ByteBar {
 public:
  explicit ByteBar(std::FILE* stream);
  ~ByteBar();  // wipes the bar off
  ByteBar(const ByteBar&) = delete;
  ByteBar& operator=(const ByteBar&) = delete;

  void show(std::int64_t done, std::int64_t total);

 private:
  std::FILE* stream_;
  bool draws_ = false;
  bool colour_ = false;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_draw_;
};

}  // namespace switchyard
