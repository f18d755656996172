// Fuzzing of the manifest's parser. The checksum in the first line is made right, since damage that it catches is no
// test of what stands behind it. What is read must be written and read again as the same.
#include "trainer/checkpoint/manifest.h"

#include "comm/base/error.h"

#include <cstdlib>
#include <string>

using namespace switchyard;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string rest(reinterpret_cast<const char*>(data), size);
  const std::string head =
      fmt::format("{{\"format\": \"switchyard-checkpoint\", \"version\": {}, \"xxh3_128\": \"{}\",\n",
                  checkpoint::format_version, checkpoint::to_hex(checkpoint::hash128(rest)));
  for (const std::string& text : {head + rest, rest}) {
    std::string again;
    try {
      again = to_text(checkpoint::parse_manifest(text, "fuzz"));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Data) std::abort();
      continue;
    }
    if (to_text(checkpoint::parse_manifest(again, "again")) != again) std::abort();
  }
  return 0;
}
