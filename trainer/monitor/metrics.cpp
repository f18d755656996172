#include "trainer/monitor/metrics.h"

#include "comm/base/error.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void cannot(const char* what, const fs::path& path) {
  fail(ErrorKind::Runtime, "cannot {} {}: {}", what, path.string(), std::strerror(errno));
}

// The step of a whole line; -1 for a line that is not one of ours.
std::int64_t step_of(const std::string& line) {
  const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
  if (!object.is_object()) return -1;
  const auto step = object.find("step");
  return step != object.end() && step->is_number_integer() ? step->get<std::int64_t>() : -1;
}

// Copies what stays to a file beside it, which then takes its place: an end of the process at any instant leaves the
// old file or the new one.
void keep_until(const fs::path& path, std::int64_t last_step) {
  const fs::path kept = path.string() + ".tmp";
  std::ifstream in(path, std::ios::binary);
  if (!in) cannot("read", path);
  std::ofstream out(kept, std::ios::binary | std::ios::trunc);
  for (std::string line; std::getline(in, line);) {
    const bool whole = !in.eof();  // it had its line end
    const std::int64_t step = whole ? step_of(line) : -1;
    if (step >= 0 && step <= last_step) out << line << '\n';
  }
  out.close();
  if (!out) cannot("write", kept);
  std::error_code error;
  fs::rename(kept, path, error);
  if (error) fail(ErrorKind::Runtime, "cannot replace {}: {}", path.string(), error.message());
}

}  // namespace

std::string digest_text(std::uint64_t digest) {
  return fmt::format("{:016x}", digest);
}

std::string to_json(const StepMetrics& m) {
  nlohmann::ordered_json line;
  line["step"] = m.step;
  line["tokens"] = m.tokens;
  line["loss"] = m.loss;
  line["aux_loss"] = m.aux_loss;
  line["z_loss"] = m.z_loss;
  line["lr"] = m.lr;
  line["grad_norm"] = m.grad_norm;
  line["tokens_per_s"] = m.tokens_per_s;
  line["step_time_s"] = m.step_time_s;
  if (m.exchange_s) line["exchange_s"] = *m.exchange_s;
  if (m.exchange_hidden) line["exchange_hidden"] = *m.exchange_hidden;
  line["slots"] = m.slots;
  line["slots_kept"] = m.slots_kept;
  line["slots_dropped"] = m.slots_dropped;
  line["drop_rate"] = m.drop_rate;
  line["skipped"] = m.skipped;
  if (!m.skip.empty()) line["skip"] = m.skip;
  if (m.moved_experts) line["moved_experts"] = *m.moved_experts;
  if (m.digest) line["digest"] = digest_text(*m.digest);
  for (const LayerMetrics& layer : m.layers) {
    const std::string prefix = fmt::format("moe.{}.", layer.layer);
    line[prefix + "load_max_over_mean"] = layer.load_max_over_mean;
    line[prefix + "max_violation"] = layer.max_violation;
    line[prefix + "entropy"] = layer.entropy;
    line[prefix + "drop_rate"] = layer.drop_rate;
    line[prefix + "dead_experts"] = layer.dead_experts;
    if (layer.rank_load_max_over_mean) line[prefix + "rank_load_max_over_mean"] = *layer.rank_load_max_over_mean;
  }
  if (m.valid_loss) line["valid_loss"] = *m.valid_loss;
  if (m.valid_bits_per_byte) line["valid_bits_per_byte"] = *m.valid_bits_per_byte;
  return line.dump();
}

MetricsWriter::MetricsWriter(const fs::path& file, std::int64_t resumed_step) : path_(file) {
  std::error_code error;
  if (resumed_step > 0 && fs::exists(path_, error)) keep_until(path_, resumed_step);
  // "r+": what amend() writes takes the place of a line's end, which appending would not allow.
  const bool anew = resumed_step == 0 || !fs::exists(path_, error);
  file_ = std::fopen(path_.c_str(), anew ? "wb" : "r+b");
  if (file_ == nullptr) cannot("write", path_);
}

MetricsWriter::~MetricsWriter() {
  std::fclose(file_);
}

void MetricsWriter::put(const std::string& line) {
  const bool done = std::fseek(file_, line_begin_, SEEK_SET) == 0 &&
                    std::fwrite(line.data(), 1, line.size(), file_) == line.size() && std::fflush(file_) == 0 &&
                    ::ftruncate(::fileno(file_), std::ftell(file_)) == 0;
  if (!done) cannot("write", path_);
}

void MetricsWriter::write(const StepMetrics& metrics) {
  if (std::fseek(file_, 0, SEEK_END) != 0) cannot("write", path_);
  line_begin_ = std::ftell(file_);
  line_ = to_json(metrics);
  put(line_ + '\n');
}

void MetricsWriter::amend(const CheckpointMetrics& metrics) {
  if (line_.empty()) return;
  nlohmann::ordered_json more;
  more["checkpoint_step"] = metrics.step;
  more["checkpoint_bytes"] = metrics.bytes;
  more["checkpoint_stall_s"] = metrics.stall_s;
  more["checkpoint_write_s"] = metrics.write_s;
  put(line_.substr(0, line_.size() - 1) + ',' + more.dump().substr(1) + '\n');
}

}  // namespace switchyard
