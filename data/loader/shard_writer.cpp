#include "data/loader/shard_writer.h"

#include "comm/base/error.h"
#include "comm/base/ids.h"
#include "data/loader/durable.h"
#include "data/loader/shard_header.h"

#include <algorithm>
#include <array>

#include <xxhash.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

template <class T>
std::span<const std::byte> narrow(std::span<const std::int32_t> tokens, std::vector<std::byte>& room) {
  room.resize(tokens.size() * sizeof(T));
  auto* out = reinterpret_cast<T*>(room.data());
  for (std::size_t i = 0; i < tokens.size(); ++i) out[i] = static_cast<T>(tokens[i]);
  return room;
}

}  // namespace

struct ShardWriter::Open {
  explicit Open(const fs::path& to) : final_name(to), temporary(fs::path(to) += ".partial"), file(temporary) {
    XXH3_64bits_reset(state.get());
  }

  struct FreeState {
    void operator()(XXH3_state_t* p) const { XXH3_freeState(p); }
  };

  fs::path final_name, temporary;
  DurableFile file;
  std::unique_ptr<XXH3_state_t, FreeState> state{XXH3_createState()};
  std::vector<std::byte> room;
  std::int64_t tokens = 0;
};

ShardWriter::ShardWriter(fs::path folder, Split split, std::int64_t vocab, std::int64_t tokens_a_shard)
    : folder_(std::move(folder)), split_(split), vocab_(vocab), tokens_a_shard_(tokens_a_shard) {
  require(vocab_ >= 1 && tokens_a_shard_ >= 1, "shards of {} tokens with a vocabulary of {}", tokens_a_shard_, vocab_);
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::begin_shard() {
  open_ = std::make_unique<Open>(folder_ / shard_name(split_, shards_));
  open_->file.write(
      std::array<std::byte, token_shard::kHeaderBytes>{});  // its place: what goes there is known at the end
}

void ShardWriter::end_shard() {
  open_->file.write_at_start(token_shard::to_bytes({.token_bytes = token_shard::token_bytes(vocab_),
                                                    .tokens = static_cast<std::uint64_t>(open_->tokens),
                                                    .vocab = static_cast<std::uint64_t>(vocab_),
                                                    .payload_checksum = XXH3_64bits_digest(open_->state.get())}));
  open_->file.close();
  fs::rename(open_->temporary, open_->final_name);
  open_.reset();
  ++shards_;
}

void ShardWriter::write(std::span<const std::int32_t> tokens) {
  const auto beyond = std::find_if(tokens.begin(), tokens.end(), [&](std::int32_t t) { return t < 0 || t >= vocab_; });
  require(beyond == tokens.end(), "token {} written to a shard with a vocabulary of {}",
          beyond == tokens.end() ? 0 : *beyond, vocab_);
  while (!tokens.empty()) {
    if (!open_) begin_shard();
    const auto part = tokens.first(std::min(tokens.size(), usize(tokens_a_shard_ - open_->tokens)));
    const auto bytes = token_shard::token_bytes(vocab_) == 2 ? narrow<std::uint16_t>(part, open_->room)
                                                             : narrow<std::uint32_t>(part, open_->room);
    open_->file.write(bytes);
    XXH3_64bits_update(open_->state.get(), bytes.data(), bytes.size());
    open_->tokens += isize(part.size());
    tokens_ += isize(part.size());
    tokens = tokens.subspan(part.size());
    if (open_->tokens == tokens_a_shard_) end_shard();
  }
}

void ShardWriter::finish() {
  if (open_) end_shard();
  sync_folder(folder_);
}

}  // namespace switchyard
