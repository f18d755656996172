// The names of a checkpoint's folders and files, and the paths of tensors inside a file.
#pragma once

#include "trainer/checkpoint/checkpoint.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace switchyard::checkpoint {

struct TensorRecord;

inline constexpr const char* manifest_name = "manifest.json";
inline constexpr const char* index_name = "index.h5";
inline constexpr const char* latest_name = "latest";
inline constexpr const char* pin_name = "pinned";
inline constexpr const char* marker_name = ".switchyard-writing";  // in a folder that is being written

std::string step_folder_name(std::int64_t step);                                          // step-00000400
std::optional<std::int64_t> step_of_folder_name(std::string_view name);                   // nothing for any other name
std::string temporary_folder_name(const std::string& folder, const std::string& run_id);  // FOLDER.tmp-RUN
std::string temporary_folder_name(std::int64_t step, const std::string& run_id);          // step-00000400.tmp-RUN
std::string trash_folder_name(std::string_view folder, int attempt);                      // .trash-step-00000400-0
bool is_temporary_folder_name(std::string_view name);
bool is_trash_folder_name(std::string_view name);
std::string shard_file_name(const char* kind, int number, int count);  // experts-00000-of-00004.h5

// Letters, digits, '.', '_' and '-', not led by a dot: nothing that could lead out of the checkpoint's folder.
bool is_plain_file_name(std::string_view name);
// "/a/b/c" of such parts.
bool is_plain_dataset_path(std::string_view path);

const char* state_name(StateKind kind);  // weight, m, v
std::optional<StateKind> state_of_name(std::string_view name);

// layers.3.experts.17.w_gate: /layers/3/experts/17/w_gate, moments in /optimizer/layers/3/experts/17/w_gate/{m,v}.
// Throws Error(Runtime) where the name has parts that a path cannot have, or would lie in /optimizer itself.
std::string dataset_path(const std::string& name, StateKind kind);
// The same for what may be a piece: /optimizer/embed_tokens/weight/m/from-65536, by its first element.
std::string dataset_path(const TensorRecord& tensor);

// For messages: "layer 3 expert 17 (layers.3.experts.17.w_gate, moment m)", "embed_tokens.weight".
std::string describe(const std::string& name, StateKind kind, const Owner& owner);

}  // namespace switchyard::checkpoint
