// Where UTF-8 ends and other bytes begin.
#pragma once

#include <cstddef>
#include <string_view>

namespace switchyard {

// The length, 1 to 4, of the well-formed UTF-8 character at the start of `text` (Unicode 15, table 3-7: no overlong
// forms, no surrogates, nothing beyond U+10FFFF); 0 where there is none.
constexpr std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto within = [&](std::size_t i, unsigned low, unsigned high) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const auto continues = [&](std::size_t i) { return within(i, 0x80, 0xBF); };
  if (text.empty()) return 0;
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const unsigned low = lead == 0xE0 ? 0xA0 : 0x80, high = lead == 0xED ? 0x9F : 0xBF;
    return within(1, low, high) && continues(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const unsigned low = lead == 0xF0 ? 0x90 : 0x80, high = lead == 0xF4 ? 0x8F : 0xBF;
    return within(1, low, high) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

// The largest place at or before `at` where `text` may be cut without dividing a character; `at` itself where the bytes
// around it are not UTF-8.
constexpr std::size_t utf8_cut(std::string_view text, std::size_t at) {
  for (std::size_t back = 1; back <= 3 && back <= at; ++back) {
    const std::size_t length = utf8_length(text.substr(at - back));
    if (length > back) return at - back;
  }
  return at;
}

}  // namespace switchyard
