#include "trainer/monitor/progress.h"

#include "comm/base/ids.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string_view>
#include <vector>

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace switchyard {
namespace {

using namespace std::chrono_literals;

constexpr auto redraw_after = 100ms;
// Weight of a new step in the running mean of the time of a step: the last 20 or so count.
constexpr double newest_weight = 0.1;

struct Figure {
  std::string text;
  const char* colour = "";  // of a terminal
};

// How evenly experts are loaded, as one of eight heights: 1 (even) to 4 times the mean and more.
const char* load_block(double max_over_mean) {
  static constexpr const char* blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const double share = std::clamp((max_over_mean - 1) / 3, 0.0, 1.0);
  return blocks[static_cast<std::size_t>(std::lround(share * 7))];
}

const char* load_colour(double max_over_mean) {
  return max_over_mean < 1.5 ? "\033[32m" : max_over_mean < 2.5 ? "\033[33m" : "\033[31m";
}

std::string loss_text(const ProgressStep& step) {
  return fmt::format("loss {:.4f}{}", step.loss,
                     step.skip.empty() ? std::string() : fmt::format(" ({}: update skipped)", step.skip));
}

// The most important first; the bar drops those that do not fit.
std::vector<Figure> figures_of(const ProgressStep& step, double seconds_left, bool blocks) {
  std::vector<Figure> figures{{loss_text(step), step.skip.empty() ? "\033[1m" : "\033[31m"},
                              {count_text(step.tokens_per_s) + " tokens/s"},
                              {duration_text(seconds_left) + " left"}};
  if (step.load_max_over_mean > 0) {
    figures.push_back(
        {fmt::format("load {}{:.2f}", blocks ? std::string(load_block(step.load_max_over_mean)) + " " : "",
                     step.load_max_over_mean),
         load_colour(step.load_max_over_mean)});
  }
  if (step.drop_rate > 0) figures.push_back({fmt::format("dropped {:.1f} %", 100 * step.drop_rate)});
  figures.push_back({fmt::format("lr {:.2e}", step.lr)});
  figures.push_back({fmt::format("grad {:.3g}", step.grad_norm)});
  return figures;
}

// Columns that a UTF-8 text takes: all of its letters here are one wide.
int width_of(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

std::string bar_of(double share, int width) {
  static constexpr const char* parts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int eighths = static_cast<int>(std::floor(std::clamp(share, 0.0, 1.0) * width * 8));
  std::string bar;
  for (int i = 0; i < eighths / 8; ++i) bar += "█";
  bar += parts[static_cast<std::size_t>(eighths % 8)];
  return bar + std::string(usize(width - width_of(bar)), ' ');
}

int terminal_columns(std::FILE* stream) {
  winsize size{};
  // The last column stays free: some terminals begin a new line as soon as it is written.
  return ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
}

std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "--:--";
  const auto whole = static_cast<std::int64_t>(std::lround(seconds));
  const std::int64_t hours = whole / 3600, minutes = whole / 60 % 60, rest = whole % 60;
  if (hours >= 24) return fmt::format("{}d {:02}:{:02}", hours / 24, hours % 24, minutes);
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, rest);
  return fmt::format("{}:{:02}", minutes, rest);
}

std::string count_text(double count) {
  if (!std::isfinite(count)) return "?";
  const char* const units[] = {"", "k", "M", "G", "T"};
  std::size_t unit = 0;
  while (std::fabs(count) >= 999.5 && unit + 1 < std::size(units)) {
    count /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f}{}", count, unit == 0 || count >= 99.95 ? 0 : count >= 9.995 ? 1 : 2, units[unit]);
}

std::string progress_line(const ProgressStep& step, std::int64_t steps, double seconds_left) {
  std::string line = fmt::format("step {}/{}", step.step, steps);
  for (const Figure& figure : figures_of(step, seconds_left, false)) line += " | " + figure.text;
  return line;
}

std::string progress_bar(const ProgressStep& step, std::int64_t steps, double seconds_left, int columns, bool colour) {
  const double share = steps > 0 ? static_cast<double>(step.step) / static_cast<double>(steps) : 0;
  const std::string count = fmt::format("{:>{}}/{}", step.step, fmt::formatted_size("{}", steps), steps);
  const int bar_width = std::clamp(columns / 5, 4, 30);
  std::string line = count;
  int width = width_of(count);
  if (width + bar_width + 3 <= columns) {
    const char* const begin = colour ? "\033[36m" : "";
    line = fmt::format("{} {}▕{}▏{}", count, begin, bar_of(share, bar_width), colour ? "\033[0m" : "");
    width += bar_width + 3;
  }
  for (const Figure& figure : figures_of(step, seconds_left, true)) {
    if (width + 2 + width_of(figure.text) > columns) break;
    width += 2 + width_of(figure.text);
    const bool coloured = colour && *figure.colour != '\0';
    line += fmt::format("  {}{}{}", coloured ? figure.colour : "", figure.text, coloured ? "\033[0m" : "");
  }
  return width <= columns ? line : "";
}

Progress::Options Progress::suited_to(std::FILE* stream, std::int64_t steps, std::int64_t first_step,
                                      std::int64_t every) {
  Options options{.steps = steps, .first_step = first_step, .every = every};
  const char* terminal = std::getenv("TERM");
  options.terminal = isatty(fileno(stream)) == 1 && terminal != nullptr && std::string_view(terminal) != "dumb";
  const char* no_colour = std::getenv("NO_COLOR");
  options.colour = options.terminal && (no_colour == nullptr || *no_colour == '\0');
  return options;
}

Progress::Progress(std::FILE* stream, const Options& options) : stream_(stream), options_(options) {}

Progress::~Progress() {
  if (!drawn_.empty()) std::fputc('\n', stream_);
  std::fflush(stream_);
}

void Progress::step(const ProgressStep& step) {
  seconds_a_step_ =
      seconds_a_step_ < 0 ? step.step_time_s : (1 - newest_weight) * seconds_a_step_ + newest_weight * step.step_time_s;
  const double left = seconds_a_step_ * static_cast<double>(options_.steps - step.step);
  const bool last = step.step == options_.steps;
  if (options_.terminal) {
    const auto now = std::chrono::steady_clock::now();
    if (!last && !drawn_.empty() && now - last_draw_ < redraw_after) return;
    last_draw_ = now;
    draw(progress_bar(step, options_.steps, left, columns(), options_.colour));
  } else if (last || !step.skip.empty() || step.step == options_.first_step + 1 || step.step % options_.every == 0) {
    std::fputs((progress_line(step, options_.steps, left) + "\n").c_str(), stream_);
    std::fflush(stream_);
  }
}

void Progress::note(const std::string& text) {
  const std::string bar = drawn_;
  clear();
  std::fputs((text + "\n").c_str(), stream_);
  if (!bar.empty()) draw(bar);
  std::fflush(stream_);
}

void Progress::draw(const std::string& line) {
  // Back to the line's beginning, the new text, and what is left of the old one wiped off.
  std::fputs(("\r" + line + "\033[K").c_str(), stream_);
  std::fflush(stream_);
  drawn_ = line;
}

void Progress::clear() {
  if (drawn_.empty()) return;
  std::fputs("\r\033[K", stream_);
  drawn_.clear();
}

int Progress::columns() const {
  return options_.columns > 0 ? options_.columns : terminal_columns(stream_);
}

}  // namespace switchyard
