// Reading JSON that may be damaged or hostile: every field is asked for by name, type and range, and what is wrong is
// told with the place where it stands. Nothing of nlohmann's exceptions gets out.
#pragma once

#include "comm/base/error.h"

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace switchyard::checkpoint {

class JsonFields {
 public:
  // `object` must outlive this.
  JsonFields(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object_.is_object()) fail(ErrorKind::Data, "{}: is not a JSON object", where_);
  }

  template <class... Args>
  [[noreturn]] void wrong(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::Data, "{}: {}", where_, fmt::format(format, std::forward<Args>(args)...));
  }

  bool has(const char* key) const { return object_.contains(key); }

  const nlohmann::json& any(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) wrong("\"{}\" is missing", key);
    return *found;
  }

  std::int64_t integer(const char* key, std::int64_t least, std::int64_t most) const {
    return checked_integer(any(key), key, least, most);
  }

  std::int64_t checked_integer(const nlohmann::json& value, const char* key, std::int64_t least,
                               std::int64_t most) const {
    const bool too_big = value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(most);
    if (!value.is_number_integer() || too_big || value.get<std::int64_t>() < least ||
        value.get<std::int64_t>() > most) {
      wrong("\"{}\" must be a whole number from {} to {}", key, least, most);
    }
    return value.get<std::int64_t>();
  }

  std::uint64_t unsigned_integer(const char* key) const {
    const nlohmann::json& value = any(key);
    if (!value.is_number_unsigned()) wrong("\"{}\" must be a whole number that is not negative", key);
    return value.get<std::uint64_t>();
  }

  const std::string& text(const char* key) const {
    const nlohmann::json& value = any(key);
    if (!value.is_string()) wrong("\"{}\" must be a string", key);
    return value.get_ref<const std::string&>();
  }

  const nlohmann::json& array(const char* key) const {
    const nlohmann::json& value = any(key);
    if (!value.is_array()) wrong("\"{}\" must be a list", key);
    return value;
  }

 private:
  const nlohmann::json& object_;
  std::string where_;
};

}  // namespace switchyard::checkpoint
