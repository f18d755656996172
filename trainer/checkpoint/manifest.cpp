#include "trainer/checkpoint/manifest.h"

#include "comm/base/ids.h"
#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/json_fields.h"
#include "trainer/checkpoint/names.h"

#include <algorithm>
#include <limits>
#include <map>
#include <unordered_map>
#include <utility>

#include <nlohmann/json.hpp>

namespace switchyard::checkpoint {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::int64_t most_integer = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t most_bytes = std::int64_t{1} << 60;
constexpr std::string_view head_start = R"({"format": "switchyard-checkpoint", "version": )";

std::string head_line(std::string_view rest) {
  return fmt::format("{}{}, \"xxh3_128\": \"{}\",\n", head_start, format_version, to_hex(hash128(rest)));
}

ordered_json to_json(const FileRecord& file) {
  return {{"name", file.name}, {"bytes", file.bytes}, {"xxh3_128", to_hex(file.hash)}, {"rank", file.rank}};
}

ordered_json to_json(const TensorRecord& tensor) {
  ordered_json result = {{"name", tensor.name}, {"state", state_name(tensor.kind)}};
  if (tensor.owner.replicated()) {
    result["kind"] = "replicated";
  } else {
    result["kind"] = "expert";
    result["expert"] = tensor.owner.expert;
  }
  if (tensor.owner.layer >= 0) result["layer"] = tensor.owner.layer;
  result["dtype"] = "float32";
  result["shape"] = tensor.shape;
  if (!tensor.whole()) result["piece"] = {tensor.first, tensor.count};
  result["file"] = tensor.file;
  result["path"] = tensor.path;
  result["offset"] = tensor.offset;
  result["xxh3_64"] = to_hex(tensor.hash);
  return result;
}

// One element a line: to be read, searched and compared with the tools of text.
template <class Records>
std::string lines(const Records& records) {
  std::string result = "[";
  for (const auto& record : records) {
    if (result.size() > 1) result += ',';
    result += "\n    " + to_json(record).dump();
  }
  return result + "\n  ]";
}

FileRecord file_of(const json& value, const std::string& where) {
  const JsonFields fields(value, where);
  FileRecord file;
  file.name = fields.text("name");
  if (!is_plain_file_name(file.name)) fields.wrong("\"{}\" is not a plain file name", file.name);
  file.bytes = fields.integer("bytes", 0, most_bytes);
  file.rank = static_cast<int>(fields.integer("rank", 0, std::numeric_limits<int>::max()));
  const auto hash = hash128_of_hex(fields.text("xxh3_128"));
  if (!hash) fields.wrong("\"xxh3_128\" must be 32 hexadecimal digits");
  file.hash = *hash;
  return file;
}

std::vector<std::int64_t> shape_of(const JsonFields& fields) {
  std::vector<std::int64_t> shape;
  std::int64_t elements = 1;
  for (const json& value : fields.array("shape")) {
    shape.push_back(fields.checked_integer(value, "shape", 1, most_bytes));
    if (elements > most_bytes / isize(sizeof(float)) / shape.back()) fields.wrong("\"shape\" has too many elements");
    elements *= shape.back();
  }
  if (shape.empty() || isize(shape.size()) > Shape::max_rank) {
    fields.wrong("\"shape\" must have 1 to {} dimensions", Shape::max_rank);
  }
  return shape;
}

// Where a tensor must lie; empty where its name cannot be one.
std::string path_of(const TensorRecord& tensor) try { return dataset_path(tensor); } catch (const Error&) {
  return {};
}

TensorRecord tensor_of(const json& value, const std::string& where) {
  const JsonFields fields(value, where);
  TensorRecord tensor;
  tensor.name = fields.text("name");
  const auto state = state_of_name(fields.text("state"));
  if (!state) fields.wrong("\"state\" must be weight, m or v");
  tensor.kind = *state;
  const std::string& kind = fields.text("kind");
  constexpr std::int64_t most = std::numeric_limits<int>::max();
  if (kind == "expert") {
    tensor.owner.layer = static_cast<int>(fields.integer("layer", 0, most));
    tensor.owner.expert = static_cast<int>(fields.integer("expert", 0, most));
  } else if (kind == "replicated") {
    if (fields.has("layer")) tensor.owner.layer = static_cast<int>(fields.integer("layer", 0, most));
  } else {
    fields.wrong("\"kind\" must be replicated or expert");
  }
  if (fields.text("dtype") != "float32") fields.wrong("this version reads no dtype but float32");
  tensor.shape = shape_of(fields);
  tensor.count = tensor.size();
  if (fields.has("piece")) {
    const json& piece = fields.array("piece");
    if (piece.size() != 2) fields.wrong("\"piece\" must be the first element and the number of elements");
    tensor.first = fields.checked_integer(piece[0], "piece", 0, tensor.size() - 1);
    tensor.count = fields.checked_integer(piece[1], "piece", 1, tensor.size() - tensor.first);
  }
  tensor.file = fields.text("file");
  tensor.path = fields.text("path");
  if (tensor.path != path_of(tensor)) fields.wrong("\"path\" is not the path of \"{}\"", tensor.name);
  tensor.offset = fields.integer("offset", 0, most_bytes);
  const auto hash = hash64_of_hex(fields.text("xxh3_64"));
  if (!hash) fields.wrong("\"xxh3_64\" must be 16 hexadecimal digits");
  tensor.hash = *hash;
  return tensor;
}

void read_records(const json& value, const std::string& where, Manifest& into) {
  const JsonFields fields(value, where);
  for (const json& file : fields.array("files")) {
    into.files.push_back(file_of(file, fmt::format("{}: file {}", where, into.files.size())));
  }
  for (const json& tensor : fields.array("tensors")) {
    into.tensors.push_back(tensor_of(tensor, fmt::format("{}: tensor {}", where, into.tensors.size())));
  }
}

json parse_json(std::string_view text, const std::string& where) {
  json value = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) fail(ErrorKind::Data, "{}: is not JSON", where);
  return value;
}

// Every tensor's file is listed and has room for it.
void check_files(const Manifest& manifest, const std::string& where) {
  struct Room {
    std::int64_t bytes;
    std::int64_t left;
  };
  std::unordered_map<std::string_view, Room> rooms;
  for (const FileRecord& file : manifest.files) {
    if (!rooms.emplace(file.name, Room{file.bytes, file.bytes}).second) {
      fail(ErrorKind::Data, "{}: lists {} twice", where, file.name);
    }
  }
  for (const TensorRecord& tensor : manifest.tensors) {
    const std::string what = describe(tensor.name, tensor.kind, tensor.owner);
    const auto room = rooms.find(tensor.file);
    if (room == rooms.end()) {
      fail(ErrorKind::Data, "{}: {} is in a file that is not listed, \"{}\"", where, what, tensor.file);
    }
    room->second.left -= tensor.bytes();
    if (room->second.left < 0 || tensor.offset > room->second.bytes - tensor.bytes()) {
      fail(ErrorKind::Data, "{}: {} does not fit into {}", where, what, tensor.file);
    }
  }
}

// Each tensor is there once, whole or in pieces that leave nothing out and have nothing twice.
void check_tensors(const Manifest& manifest, const std::string& where) {
  std::map<std::pair<std::string_view, StateKind>, std::vector<const TensorRecord*>> tensors;
  for (const TensorRecord& tensor : manifest.tensors) tensors[{tensor.name, tensor.kind}].push_back(&tensor);
  for (auto& [key, pieces] : tensors) {
    std::sort(pieces.begin(), pieces.end(),
              [](const TensorRecord* a, const TensorRecord* b) { return a->first < b->first; });
    const TensorRecord& tensor = *pieces.front();
    const std::string what = describe(tensor.name, tensor.kind, tensor.owner);
    std::int64_t end = 0;
    for (const TensorRecord* piece : pieces) {
      if (piece->shape != tensor.shape || piece->owner != tensor.owner) {
        fail(ErrorKind::Data, "{}: pieces of {} are not of one tensor", where, what);
      }
      if (piece->first < end) fail(ErrorKind::Data, "{}: lists {} twice", where, what);
      if (piece->first > end) break;
      end = piece->first + piece->count;
    }
    if (end != tensor.size()) {
      fail(ErrorKind::Data, "{}: {} is not there from element {} on", where, what, end);
    }
  }
}

// Checks the first line and gives the JSON of the whole.
json checked_json(std::string_view text, const std::string& where) {
  if (!text.starts_with(head_start)) {
    fail(ErrorKind::Data, "{}: does not begin as the manifest of a Switchyard checkpoint does", where);
  }
  const std::size_t newline = text.find('\n');
  const std::size_t head_size = newline == std::string_view::npos ? text.size() : newline + 1;
  const std::string_view head = text.substr(0, head_size);
  const std::string_view rest = text.substr(head_size);
  if (head != head_line(rest)) {
    std::string_view version = head.substr(head_start.size());
    version = version.substr(0, version.find_first_not_of("0123456789"));
    if (!version.empty() && version != std::to_string(format_version)) {
      fail(ErrorKind::Data, "{}: has format version {}; this program reads version {}", where, version, format_version);
    }
    fail(ErrorKind::Data, "{}: is damaged or was edited: its checksum is not the one in its first line", where);
  }
  return parse_json(text, where);
}

}  // namespace

std::int64_t TensorRecord::size() const {
  std::int64_t result = 1;
  for (const std::int64_t dim : shape) result *= dim;
  return result;
}

TensorRecord record_of(const StateTensor& tensor, const std::string& file) {
  TensorRecord record;
  record.name = tensor.name;
  record.kind = tensor.kind;
  record.owner = tensor.owner;
  for (int i = 0; i < tensor.shape.rank(); ++i) record.shape.push_back(tensor.shape[i]);
  record.first = tensor.offset;
  record.count = tensor.elements();
  record.file = file;
  record.path = dataset_path(record);
  return record;
}

const FileRecord& Manifest::file(std::string_view name) const {
  for (const FileRecord& record : files) {
    if (record.name == name) return record;
  }
  fail(ErrorKind::Runtime, "the manifest has no file {}", name);
}

bool Manifest::has_optimizer() const {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const TensorRecord& tensor) { return tensor.kind != StateKind::Weight; });
}

std::string to_text(const Manifest& manifest) try {
  const RunState& state = manifest.state;
  const std::pair<const char*, ordered_json> members[] = {
      {"run", state.run_id},
      {"step", state.step},
      {"updates", state.updates},
      {"skipped", state.skipped},
      {"left_out_in_a_row", {{"not_finite", state.not_finite_in_a_row}, {"spikes", state.spikes_in_a_row}}},
      {"tokens", state.tokens},
      {"cursor", {{"next_sample", state.next_sample}, {"epoch", state.epoch}, {"seed", state.seed}}},
      {"spike_losses", state.spike_losses},
      {"digest", to_hex(state.digest)},
      {"numerics", name_of(state.numerics)},
      {"ranks", manifest.ranks},
      {"config_hash", to_hex(hash64(state.config_toml.data(), isize(state.config_toml.size())))},
      {"config", state.config_toml},
  };
  std::string rest;
  for (const auto& [key, value] : members) {
    rest += fmt::format("  \"{}\": {},\n", key, value.dump());
  }
  rest += fmt::format("  \"files\": {},\n  \"tensors\": {}\n}}\n", lines(manifest.files), lines(manifest.tensors));
  return head_line(rest) + rest;
} catch (const json::exception& error) {  // text that is not UTF-8
  fail(ErrorKind::Runtime, "cannot write the manifest: {}", error.what());
}

Manifest parse_manifest(std::string_view text, const std::string& where) {
  if (isize(text.size()) > max_manifest_bytes) {
    fail(ErrorKind::Data, "{}: has {} bytes, more than the {} that are read", where, text.size(), max_manifest_bytes);
  }
  const json value = checked_json(text, where);
  const JsonFields fields(value, where);
  Manifest manifest;
  RunState& state = manifest.state;
  state.run_id = fields.text("run");
  state.step = fields.integer("step", 0, most_integer);
  state.updates = fields.integer("updates", 0, most_integer);
  state.skipped = fields.integer("skipped", 0, most_integer);
  // What earlier versions of the program did not count or keep, and so did not write.
  if (fields.has("left_out_in_a_row")) {
    const JsonFields left_out(fields.any("left_out_in_a_row"), where + ": left_out_in_a_row");
    state.not_finite_in_a_row = left_out.integer("not_finite", 0, most_integer);
    state.spikes_in_a_row = left_out.integer("spikes", 0, most_integer);
  }
  if (fields.has("spike_losses")) {
    for (const json& loss : fields.array("spike_losses")) {
      if (!loss.is_number()) fields.wrong("\"spike_losses\" must be numbers");
      state.spike_losses.push_back(loss.get<double>());
    }
  }
  state.tokens = fields.integer("tokens", 0, most_integer);
  const JsonFields cursor(fields.any("cursor"), where + ": cursor");
  state.next_sample = cursor.integer("next_sample", 0, most_integer);
  if (cursor.has("epoch")) state.epoch = cursor.integer("epoch", 0, most_integer);
  state.seed = cursor.unsigned_integer("seed");
  const auto digest = hash64_of_hex(fields.text("digest"));
  if (!digest) fields.wrong("\"digest\" must be 16 hexadecimal digits");
  state.digest = *digest;
  const std::string& numerics = fields.text("numerics");
  if (numerics != "reproducible" && numerics != "fast") fields.wrong("\"numerics\" must be reproducible or fast");
  state.numerics = numerics == "fast" ? Numerics::Fast : Numerics::Reproducible;
  manifest.ranks = fields.integer("ranks", 1, std::numeric_limits<int>::max());
  state.config_toml = fields.text("config");
  if (fields.text("config_hash") != to_hex(hash64(state.config_toml.data(), isize(state.config_toml.size())))) {
    fields.wrong("\"config_hash\" is not the hash of \"config\"");
  }
  read_records(value, where, manifest);
  check_files(manifest, where);
  check_tensors(manifest, where);
  return manifest;
}

Manifest read_manifest(const std::filesystem::path& step_folder) {
  const std::filesystem::path path = step_folder / manifest_name;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    fail(ErrorKind::Data, "{}: has no {}, so it is no complete checkpoint", step_folder.string(), manifest_name);
  }
  return parse_manifest(read_text(path, max_manifest_bytes), path.string());
}

std::string part_to_text(const std::vector<FileRecord>& files, const std::vector<TensorRecord>& tensors) {
  return fmt::format("{{\n  \"files\": {},\n  \"tensors\": {}\n}}\n", lines(files), lines(tensors));
}

void parse_part(std::string_view text, const std::string& where, Manifest& into) {
  read_records(parse_json(text, where), where, into);
}

}  // namespace switchyard::checkpoint
