#include "trainer/monitor/metrics.h"

#include "comm/base/error.h"
#include "tests/support/catch.h"

#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>

#include <nlohmann/json.hpp>
#include <unistd.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

class File {
 public:
  File() : path_(fs::temp_directory_path() / fmt::format("switchyard-metrics-{}.jsonl", getpid())) {
    fs::remove(path_);
  }
  ~File() { fs::remove(path_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  const fs::path& path() const { return path_; }
  std::string text() const {
    std::ostringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }
  void append(const std::string& text) const { std::ofstream(path_, std::ios::app) << text; }
  std::vector<std::int64_t> steps() const {
    std::vector<std::int64_t> steps;
    std::ifstream in(path_);
    for (std::string line; std::getline(in, line);) steps.push_back(nlohmann::json::parse(line).at("step"));
    return steps;
  }

 private:
  fs::path path_;
};

void write_steps(MetricsWriter& writer, std::int64_t first, std::int64_t last) {
  for (StepMetrics m{.step = first}; m.step <= last; ++m.step) writer.write(m);
}

}  // namespace

TEST_CASE("a line has the names of the manual and reads back to the same numbers") {
  StepMetrics m{.step = 7, .tokens = 1LL << 50, .loss = 0.1 + 0.2, .aux_loss = 5e-324, .z_loss = -0.0, .lr = 1e-3};
  m.grad_norm = std::numeric_limits<double>::max();
  m.slots = 10;
  m.slots_kept = 7;
  m.slots_dropped = 3;
  m.drop_rate = 0.3;
  m.digest = 0xfedcba9876543210ULL;
  m.layers = {{.layer = 3,
               .load_max_over_mean = 1.5,
               .max_violation = 0.5,
               .entropy = 2,
               .drop_rate = 0.25,
               .dead_experts = 1}};
  m.valid_loss = 3.25;
  m.valid_bits_per_byte = 1.75;
  const nlohmann::json line = nlohmann::json::parse(to_json(m));
  CHECK(line.at("step") == 7);
  CHECK(line.at("tokens") == 1LL << 50);
  CHECK(line.at("loss").get<double>() == 0.1 + 0.2);
  CHECK(line.at("aux_loss").get<double>() == 5e-324);
  CHECK(line.at("grad_norm").get<double>() == std::numeric_limits<double>::max());
  CHECK(line.at("digest") == "fedcba9876543210");
  CHECK(line.at("moe.3.load_max_over_mean") == 1.5);
  CHECK(line.at("moe.3.max_violation") == 0.5);
  CHECK(line.at("moe.3.entropy") == 2);
  CHECK(line.at("moe.3.drop_rate") == 0.25);
  CHECK(line.at("moe.3.dead_experts") == 1);
  CHECK(line.at("valid_loss") == 3.25);
  CHECK(line.at("valid_bits_per_byte") == 1.75);
  CHECK(line.at("slots") == line.at("slots_kept").get<int>() + line.at("slots_dropped").get<int>());
  for (const char* name : {"z_loss", "lr", "tokens_per_s", "step_time_s", "exchange_s", "drop_rate", "skipped"}) {
    CHECK(line.contains(name));
  }
  CHECK(to_json(m).find('\n') == std::string::npos);
}

TEST_CASE("what a step does not have is not in its line; what is not finite is null") {
  StepMetrics m;
  m.loss = std::numeric_limits<double>::quiet_NaN();
  m.grad_norm = std::numeric_limits<double>::infinity();
  const nlohmann::json line = nlohmann::json::parse(to_json(m));
  CHECK(line.at("loss").is_null());
  CHECK(line.at("grad_norm").is_null());
  CHECK_FALSE(line.contains("digest"));
  CHECK_FALSE(line.contains("valid_loss"));
}

TEST_CASE("any double reads back to its own bits") {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t bits = random();
    StepMetrics m;
    std::memcpy(&m.loss, &bits, sizeof bits);
    if (!std::isfinite(m.loss)) continue;
    const double back = nlohmann::json::parse(to_json(m)).at("loss");
    REQUIRE(std::memcmp(&back, &m.loss, sizeof back) == 0);
  }
}

TEST_CASE("each line is in the file as soon as it is written") {
  const File file;
  MetricsWriter writer(file.path(), 0);
  write_steps(writer, 1, 2);
  CHECK(file.steps() == std::vector<std::int64_t>{1, 2});
}

TEST_CASE("a resumed run goes on after its step, and a new run begins anew") {
  const File file;
  {
    MetricsWriter writer(file.path(), 0);
    write_steps(writer, 1, 6);
  }
  const std::string first = file.text().substr(0, file.text().find("{\"step\":5"));
  { MetricsWriter writer(file.path(), 4); }
  CHECK(file.text() == first);
  {
    MetricsWriter writer(file.path(), 4);
    write_steps(writer, 5, 5);
  }
  CHECK(file.steps() == std::vector<std::int64_t>{1, 2, 3, 4, 5});
  {
    MetricsWriter writer(file.path(), 0);
    write_steps(writer, 1, 1);
  }
  CHECK(file.steps() == std::vector<std::int64_t>{1});
}

TEST_CASE("a line that the end of a process has torn is dropped, at whatever byte") {
  const File file;
  const std::string line = to_json({.step = 3}) + "\n";
  for (std::size_t bytes = 0; bytes <= line.size(); ++bytes) {
    {
      MetricsWriter writer(file.path(), 0);
      write_steps(writer, 1, 2);
    }
    file.append(line.substr(0, bytes));
    {
      MetricsWriter writer(file.path(), 3);
      write_steps(writer, 4, 4);
    }
    const bool whole = bytes == line.size();
    REQUIRE(file.steps() == (whole ? std::vector<std::int64_t>{1, 2, 3, 4} : std::vector<std::int64_t>{1, 2, 4}));
  }
}

TEST_CASE("a save that has come to its end is told in the line that was written last") {
  File file;
  {
    MetricsWriter writer(file.path(), 0);
    writer.amend({.step = 1});  // there is no line yet
    write_steps(writer, 1, 2);
    writer.amend({.step = 123456, .bytes = 1, .stall_s = 0.125, .write_s = 1234.5678});
    writer.amend({.step = 1, .bytes = 2, .stall_s = 0.5, .write_s = 2});  // shorter than the one whose place it takes
    write_steps(writer, 3, 3);
  }
  CHECK(file.steps() == std::vector<std::int64_t>{1, 2, 3});
  CHECK(file.text().find("\"checkpoint_step\":1,\"checkpoint_bytes\":2,\"checkpoint_stall_s\":0.5,"
                         "\"checkpoint_write_s\":2.0}\n{\"step\":3,") != std::string::npos);
  CHECK(file.text().find("123456") == std::string::npos);
}

TEST_CASE("a file that cannot be written is named") {
  CHECK_THROWS_WITH(MetricsWriter("/no/such/folder/metrics.jsonl", 0),
                    Catch::Contains("/no/such/folder/metrics.jsonl") && Catch::Contains("No such file"));
  MetricsWriter full("/dev/full", 0);
  CHECK_THROWS_WITH(full.write({}), Catch::Contains("/dev/full") && Catch::Contains("No space left"));
}

}  // namespace switchyard
