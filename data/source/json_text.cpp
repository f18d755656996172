#include "data/source/json_text.h"

#include <stdexcept>

#include <nlohmann/json.hpp>

namespace switchyard {

std::string text_of_json(std::string_view line) {
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(line);
  } catch (const nlohmann::json::parse_error& error) {
    throw std::runtime_error("not valid JSON: " + std::string(error.what()));
  }
  if (!value.is_object())
    throw std::runtime_error("a line must be an object {\"text\": \"...\"}, not " + std::string(value.type_name()));
  const auto text = value.find("text");
  if (text == value.end()) throw std::runtime_error("the object has no \"text\"");
  if (!text->is_string()) throw std::runtime_error("\"text\" is not a string but " + std::string(text->type_name()));
  return std::move(text->get_ref<std::string&>());
}

}  // namespace switchyard
