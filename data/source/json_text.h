// The text of one line of JSONL.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

// The "text" of {"text": "...", ...}. Throws std::runtime_error that says what is wrong with the line.
std::string text_of_json(std::string_view line);

}  // namespace switchyard
