// What a person sees of a run while it goes on: on a terminal one line that is drawn over and over, with a bar; in a
// log file a plain line every so many steps. It is written to stderr by rank 0.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace switchyard {

struct ProgressStep {
  std::int64_t step = 0;  // steps done
  double loss = 0;
  double lr = 0;
  double grad_norm = 0;
  double tokens_per_s = 0;
  double load_max_over_mean = 0;  // of the most uneven layer; 0: no mixture
  double drop_rate = 0;
  double step_time_s = 0;
  std::string skip = {};  // why the update was left out, "not finite"; empty: it was not
};

// "3:07", "1:02:03", "4d 02:03"; "--:--" where there is nothing to go by.
std::string duration_text(double seconds);

// "812", "23.4k", "1.25M".
std::string count_text(double count);

// What fills `width` columns of a terminal to this share, in eighths of a column.
std::string bar_of(double share, int width);
// The columns that a line on this terminal may take.
int terminal_columns(std::FILE* stream);

// The line of a log: "step 120/2000 | loss 3.2145 | ...". seconds_left < 0: not known.
std::string progress_line(const ProgressStep& step, std::int64_t steps, double seconds_left);
// The line of a terminal, at most `columns` wide: bar first, then as many of the figures as fit, most important first.
std::string progress_bar(const ProgressStep& step, std::int64_t steps, double seconds_left, int columns, bool colour);

class Progress {
 public:
  struct Options {
    std::int64_t steps = 0;       // of the whole run
    std::int64_t first_step = 0;  // done before, in a resumed run
    std::int64_t every = 10;      // steps between plain lines
    bool terminal = false;
    bool colour = false;
    int columns = 0;  // of the terminal; 0: ask it each time
  };
  // What suits the stream: a bar on a terminal that can draw one, colour unless NO_COLOR is set.
  static Options suited_to(std::FILE* stream, std::int64_t steps, std::int64_t first_step, std::int64_t every);

  Progress(std::FILE* stream, const Options& options);
  ~Progress();  // leaves the last bar on its line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const ProgressStep& step);
  // A line of its own (an evaluation, a checkpoint, a warning); the bar is drawn again below it.
  void note(const std::string& text);

 private:
  void draw(const std::string& line);
  void clear();
  int columns() const;

  std::FILE* stream_;
  Options options_;
  double seconds_a_step_ = -1;  // running mean
  std::string drawn_;           // what stands on the terminal's last line now
  std::chrono::steady_clock::time_point last_draw_{};
};

}  // namespace switchyard
