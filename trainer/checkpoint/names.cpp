#include "trainer/checkpoint/names.h"

#include "trainer/checkpoint/manifest.h"

#include <algorithm>
#include <charconv>

namespace switchyard::checkpoint {
namespace {

constexpr std::string_view step_prefix = "step-";
constexpr std::string_view temporary_infix = ".tmp-";
constexpr std::string_view trash_prefix = ".trash-";

bool is_plain_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

}  // namespace

std::string step_folder_name(std::int64_t step) {
  return fmt::format("{}{:08}", step_prefix, step);
}

std::optional<std::int64_t> step_of_folder_name(std::string_view name) {
  if (name.substr(0, step_prefix.size()) != step_prefix) return std::nullopt;
  const std::string_view digits = name.substr(step_prefix.size());
  std::int64_t step = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  // One spelling a step, so that step-4 beside step-00000004 is nobody's riddle.
  if (step < 0 || step_folder_name(step) != name) return std::nullopt;
  return step;
}

std::string temporary_folder_name(const std::string& folder, const std::string& run_id) {
  std::string run = run_id.substr(0, 64);
  std::replace_if(
      run.begin(), run.end(), [](char c) { return !is_plain_char(c); }, '-');
  return fmt::format("{}{}{}", folder, temporary_infix, run.empty() ? "run" : run);
}

std::string temporary_folder_name(std::int64_t step, const std::string& run_id) {
  return temporary_folder_name(step_folder_name(step), run_id);
}

std::string trash_folder_name(std::string_view folder, int attempt) {
  return fmt::format("{}{}-{}", trash_prefix, folder, attempt);
}

bool is_temporary_folder_name(std::string_view name) {
  const std::size_t at = name.find(temporary_infix);
  return at != std::string_view::npos && name.size() > at + temporary_infix.size() &&
         step_of_folder_name(name.substr(0, at)).has_value();
}

bool is_trash_folder_name(std::string_view name) {
  if (name.substr(0, trash_prefix.size()) != trash_prefix) return false;
  const std::string_view rest = name.substr(trash_prefix.size());
  const std::size_t dash = rest.rfind('-');
  if (dash == std::string_view::npos || dash + 1 == rest.size()) return false;
  const std::string_view digits = rest.substr(dash + 1);
  const std::string_view folder = rest.substr(0, dash);
  return std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; }) &&
         (step_of_folder_name(folder).has_value() || is_temporary_folder_name(folder));
}

std::string shard_file_name(const char* kind, int number, int count) {
  return fmt::format("{}-{:05}-of-{:05}.h5", kind, number, count);
}

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), is_plain_char);
}

bool is_plain_dataset_path(std::string_view path) {
  if (path.empty() || path.front() != '/') return false;
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::string_view part = path.substr(0, path.find('/'));
    if (!is_plain_file_name(part)) return false;
    path.remove_prefix(part.size());
  }
  return true;
}

const char* state_name(StateKind kind) {
  switch (kind) {
    case StateKind::Weight:
      return "weight";
    case StateKind::Moment1:
      return "m";
    case StateKind::Moment2:
      return "v";
  }
  return "unknown";
}

std::optional<StateKind> state_of_name(std::string_view name) {
  for (const StateKind kind : {StateKind::Weight, StateKind::Moment1, StateKind::Moment2}) {
    if (name == state_name(kind)) return kind;
  }
  return std::nullopt;
}

std::string dataset_path(const std::string& name, StateKind kind) {
  std::string path = "/" + name;
  std::replace(path.begin(), path.end(), '.', '/');
  const bool reserved = path == "/optimizer" || path.starts_with("/optimizer/");
  require(is_plain_dataset_path(path) && !reserved, "\"{}\" cannot be the name of a tensor in a checkpoint", name);
  return kind == StateKind::Weight ? path : fmt::format("/optimizer{}/{}", path, state_name(kind));
}

std::string dataset_path(const TensorRecord& tensor) {
  const std::string path = dataset_path(tensor.name, tensor.kind);
  return tensor.whole() ? path : fmt::format("{}/from-{}", path, tensor.first);
}

std::string describe(const std::string& name, StateKind kind, const Owner& owner) {
  const std::string tensor = kind == StateKind::Weight ? name : fmt::format("{}, moment {}", name, state_name(kind));
  return owner.replicated() ? tensor : fmt::format("layer {} expert {} ({})", owner.layer, owner.expert, tensor);
}

}  // namespace switchyard::checkpoint
