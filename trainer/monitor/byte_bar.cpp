#include "trainer/monitor/byte_bar.h"

#include "trainer/monitor/memory.h"
#include "trainer/monitor/progress.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/core.h>

namespace switchyard {
namespace {

using namespace std::chrono_literals;
constexpr auto redraw_after = 100ms;

double seconds_of(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

std::string byte_bar(std::int64_t done, std::int64_t total, double seconds, int columns, bool colour) {
  const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1;
  const double speed = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  const double left = speed > 0 ? static_cast<double>(total - done) / speed : -1;
  const std::string begin = fmt::format("{:3.0f} % ", std::floor(100 * share));
  const std::array figures = {fmt::format("{} of {}", size_text(done), size_text(total)),
                              fmt::format("{}/s", size_text(static_cast<std::int64_t>(speed))),
                              fmt::format("{} left", duration_text(left))};
  const int bar_width = std::clamp(columns / 4, 4, 30);
  int width = static_cast<int>(begin.size()) + bar_width + 2;
  if (width > columns) return "";
  std::string line =
      fmt::format("{}{}▕{}▏{}", begin, colour ? "\033[36m" : "", bar_of(share, bar_width), colour ? "\033[0m" : "");
  for (const std::string& figure : figures) {
    if (width + 2 + static_cast<int>(figure.size()) > columns) break;
    width += 2 + static_cast<int>(figure.size());
    line += "  " + figure;
  }
  return line;
}

ByteBar::ByteBar(std::FILE* stream) : stream_(stream), start_(std::chrono::steady_clock::now()), last_draw_(start_) {
  const Progress::Options suited = Progress::suited_to(stream, 0, 0, 0);
  draws_ = suited.terminal;
  colour_ = suited.colour;
}

ByteBar::~ByteBar() {
  if (drawn_) std::fputs("\r\033[K", stream_);
  std::fflush(stream_);
}

void ByteBar::show(std::int64_t done, std::int64_t total) {
  if (!draws_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - last_draw_ < redraw_after) return;
  last_draw_ = now;
  const std::string line = byte_bar(done, total, seconds_of(now - start_), terminal_columns(stream_), colour_);
  std::fputs(("\r" + line + "\033[K").c_str(), stream_);
  std::fflush(stream_);
  drawn_ = true;
}

}  // namespace switchyard
