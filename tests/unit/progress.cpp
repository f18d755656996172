// What people read: progress lines, the bar, the banner, sizes.
#include "trainer/monitor/progress.h"

#include "tests/support/catch.h"
#include "trainer/monitor/banner.h"
#include "trainer/monitor/memory.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include <fmt/core.h>

namespace switchyard {
namespace {

// All that is written to a stream.
template <class Work>
std::string written(const Work& work) {
  std::FILE* file = std::tmpfile();
  work(file);
  std::string text(static_cast<std::size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  CHECK(std::fread(text.data(), 1, text.size(), file) == text.size());
  std::fclose(file);
  return text;
}

int lines(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

int columns(const std::string& text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

ProgressStep step(std::int64_t number) {
  return {.step = number,
          .loss = 3.14159,
          .lr = 1e-3,
          .grad_norm = 0.5,
          .tokens_per_s = 12345,
          .load_max_over_mean = 1.25,
          .step_time_s = 2};
}

Banner banner() {
  Banner b;
  b.version = "0.1.0";
  b.run = "runs/a";
  b.ranks = 4;
  b.hosts = {"north", "south"};
  b.ranks_on = {3, 1};
  b.device = "cpu";
  b.exchange = "flat";
  b.why_exchange = "one rank";
  b.numerics = "reproducible";
  b.layers = b.mixture_layers = 4;
  b.experts = 8;
  b.top_k = 2;
  b.expert_size = 4;
  b.parameters = 12'300'000;
  b.active_parameters = 4'560'000;
  b.memory = {{"weights", 64 << 20}, {"gradients", 128 << 20}, {"packed weights", 0}};
  return b;
}

}  // namespace

TEST_CASE("durations, counts and sizes as people read them") {
  CHECK(duration_text(0) == "0:00");
  CHECK(duration_text(59.6) == "1:00");
  CHECK(duration_text(187) == "3:07");
  CHECK(duration_text(3723) == "1:02:03");
  CHECK(duration_text(4 * 86400 + 7380) == "4d 02:03");
  CHECK(duration_text(-1) == "--:--");
  CHECK(duration_text(std::numeric_limits<double>::quiet_NaN()) == "--:--");
  CHECK(count_text(0) == "0");
  CHECK(count_text(999) == "999");
  CHECK(count_text(999.6) == "1.00k");
  CHECK(count_text(23'400) == "23.4k");
  CHECK(count_text(1'250'000) == "1.25M");
  CHECK(count_text(236e9) == "236G");
  CHECK(size_text(0) == "0 B");
  CHECK(size_text(1023) == "1.0 KiB");
  CHECK(size_text(812LL << 20) == "812 MiB");
  CHECK(size_text((3LL << 30) + (400LL << 20)) == "3.4 GiB");
}

TEST_CASE("a log gets a plain line every so many steps, and the first and last") {
  const std::string text = written([](std::FILE* file) {
    Progress progress(file, {.steps = 25, .first_step = 3, .every = 10});
    for (std::int64_t i = 4; i <= 25; ++i) progress.step(step(i));
    progress.note("a note");
  });
  CHECK(lines(text) == 5);  // 4, 10, 20, 25, the note
  CHECK(
      text.starts_with("step 4/25 | loss 3.1416 | 12.3k tokens/s | 0:42 left | load 1.25 | lr 1.00e-03 | grad 0.5\n"));
  CHECK(text.find('\033') == std::string::npos);
  CHECK(text.find('\r') == std::string::npos);
}

TEST_CASE("a skipped update is always told") {
  const std::string text = written([](std::FILE* file) {
    Progress progress(file, {.steps = 100, .every = 50});
    progress.step(step(1));
    ProgressStep bad = step(7);
    bad.skip = "not finite";
    bad.loss = std::numeric_limits<double>::quiet_NaN();
    progress.step(bad);
  });
  CHECK_THAT(text, Catch::Contains("step 7/100 | loss nan (not finite: update skipped)"));
}

TEST_CASE("a terminal gets one line that is drawn again, and notes above it") {
  const std::string text = written([](std::FILE* file) {
    Progress progress(file, {.steps = 3, .terminal = true, .columns = 100});
    for (std::int64_t i = 1; i <= 3; ++i) progress.step(step(i));
    progress.note("saved");
  });
  CHECK_THAT(text, Catch::StartsWith("\r1/3 "));
  CHECK_THAT(text, Catch::Contains("3/3 "));  // the last step is drawn, however soon it comes
  CHECK_THAT(text, Catch::Contains("\r\033[Ksaved\n\r3/3 "));
  CHECK(lines(text) == 2);  // the note's, and the one that leaves the bar standing
}

TEST_CASE("the bar fits every width and drops the least important figures first") {
  for (int width = 1; width < 200; ++width) {
    const std::string bar = progress_bar(step(120), 2000, 187, width, false);
    INFO(width << ": " << bar);
    CHECK(columns(bar) <= width);
    if (bar.find("tokens/s") != std::string::npos) CHECK(bar.find("loss") != std::string::npos);
  }
  const std::string wide = progress_bar(step(120), 2000, 187, 180, false);
  for (const char* figure :
       {" 120/2000", "loss 3.1416", "12.3k tokens/s", "3:07 left", "load", "1.25", "lr", "grad 0.5"}) {
    CHECK_THAT(wide, Catch::Contains(figure));
  }
  CHECK(progress_bar(step(120), 2000, 187, 80, true).find('\033') != std::string::npos);
}

TEST_CASE("the banner says what runs where") {
  const std::string text = format_banner(banner(), false);
  for (const char* part :
       {"4 ranks on 2 nodes (north: 3, south: 1)", "12.3M in all, 4.56M active", "8 experts, top 2, dropless",
        "4 x 1 grid", "192 MiB a rank predicted (weights 64 MiB, gradients 128 MiB)", "exchange    flat (picked: one rank)",
        "reproducible numerics on cpu"}) {
    CHECK_THAT(text, Catch::Contains(part));
  }
  CHECK(text.find("warning") == std::string::npos);
  CHECK(text.find('\033') == std::string::npos);
  Banner small = banner();
  small.memory_available = 100 << 20;
  CHECK_THAT(format_banner(small, false), Catch::Contains("more than the 100 MiB that a rank may take"));
  CHECK_THAT(format_banner(small, false), Catch::Contains("set parallel.zero = 1, or spread"));
  small.zero = 1;
  CHECK_THAT(format_banner(small, false), Catch::Contains("state is split over ranks"));
  CHECK(format_banner(small, false).find("parallel.zero") == std::string::npos);
  Banner many = banner();
  many.hosts.assign(40, "n");
  many.ranks_on.assign(40, 1);
  CHECK_THAT(format_banner(many, false), Catch::Contains("and 32 more"));
}

TEST_CASE("memory as the system counts it") {
  const std::int64_t before = peak_memory();
  std::vector<char> block(64 << 20, 1);
  CHECK(block[12345] == 1);
  CHECK(peak_memory() >= before);
  CHECK(peak_memory() >= std::int64_t{64} << 20);
  CHECK(available_memory() > 0);
}

}  // namespace switchyard
