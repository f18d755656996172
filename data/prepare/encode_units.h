// Tokenises many units at once, on several threads.
#pragma once

#include "data/source/unit_reader.h"
#include "data/tokenizer/tokenizer.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// tokens[i] = encoding of units[i]; the same for any number of threads. Throws what a thread threw.
std::vector<std::vector<std::int32_t>> encode_units(const Tokenizer& tokenizer, std::span<const Unit> units,
                                                    unsigned threads);

}  // namespace switchyard
