// The line that a long copy draws on a terminal, and only there.
#include "trainer/monitor/byte_bar.h"

#include "tests/support/catch.h"

#include <algorithm>
#include <string>

namespace switchyard {
namespace {

int columns_of(const std::string& text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

TEST_CASE("a byte bar tells share, bytes, speed and the time left, as far as they fit") {
  const std::int64_t mib = 1 << 20;
  const std::string half = byte_bar(512 * mib, 1024 * mib, 2, 100, false);
  CHECK_THAT(half, Catch::StartsWith(" 50 % ▕████████████▌            ▏  ") && Catch::EndsWith("  0:02 left"));
  CHECK_THAT(half, Catch::Contains(" of ") && Catch::Contains("/s"));
  for (int columns = 1; columns < 120; ++columns) {
    CHECK(columns_of(byte_bar(512 * mib, 1024 * mib, 2, columns, false)) <= columns);
  }
  CHECK_THAT(byte_bar(0, 1024 * mib, 0, 100, false), Catch::StartsWith("  0 % ▕   ") && Catch::EndsWith("--:-- left"));
  CHECK_THAT(byte_bar(1024 * mib, 1024 * mib, 2, 100, true), Catch::StartsWith("100 % \033[36m▕█████"));
  CHECK_THAT(byte_bar(0, 0, 0, 100, false), Catch::StartsWith("100 % "));
}

TEST_CASE("where there is no terminal nothing is drawn") {
  std::FILE* file = std::tmpfile();
  {
    ByteBar bar(file);
    for (int i = 0; i <= 100; ++i) bar.show(i, 100);
  }
  CHECK(std::ftell(file) == 0);
  std::fclose(file);
}

}  // namespace switchyard
