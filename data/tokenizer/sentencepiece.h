// SentencePiece byte-pair encoding: trained on a sample of the corpus, lossless for any bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

// The smallest vocabulary that holds 256 bytes, end of text, unknown, and letters enough to begin with.
inline constexpr std::int64_t kSmallestPieceVocab = 320;
inline constexpr std::int64_t kLargestPieceVocab = 1 << 20;
void check_sentencepiece_vocab(std::int64_t vocab);  // throws Error(Usage) where it is out of range

// Trains on `sample` (any text; consumed, to spare its memory) and returns the serialized model. The same sample gives
// the same bytes. The vocabulary is smaller than `vocab` where the sample does not hold that many pieces worth having.
// Throws Error(Usage) where `vocab` is out of range, Error(Data) where the sample holds no letter.
std::string train_sentencepiece(std::vector<std::string> sample, std::int64_t vocab);

}  // namespace switchyard
