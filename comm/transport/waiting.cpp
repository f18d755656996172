#include "comm/transport/waiting.h"

#include "comm/transport/patience.h"

#include <atomic>
#include <map>
#include <mutex>

#include <fmt/core.h>

namespace switchyard {
namespace {

std::mutex guard;                            // of what follows, and of the messages of the current wait
constinit const Waiting* current = nullptr;  // lives on the stack of the thread that waits
std::atomic<std::int64_t> waited_ns = 0;
std::atomic<std::int64_t> ended = 0;

constexpr std::size_t most_peers_named = 8;

struct Traffic {
  std::int64_t expected = 0;
  std::int64_t done = 0;
};

// "rank 2: 0 of 8192 bytes received, rank 5: ...", of the peers that are not done.
std::string open_traffic(const std::map<int, Traffic>& peers, const char* verb) {
  std::string text;
  std::size_t named = 0;
  std::size_t open = 0;
  for (const auto& [peer, traffic] : peers) {
    if (traffic.done == traffic.expected || ++open > most_peers_named) continue;
    text += fmt::format("{}rank {}: {} of {} bytes {}", named++ == 0 ? "" : ", ", peer, traffic.done, traffic.expected,
                        verb);
  }
  if (open > most_peers_named) text += fmt::format(" and {} others", open - most_peers_named);
  return text;
}

}  // namespace

Waiting::Waiting(const char* call, int ranks, std::int64_t bytes) : call_(call), ranks_(ranks), bytes_(bytes) {
  const std::lock_guard lock(guard);
  current = this;
}

Waiting::Waiting(const char* call, int ranks, std::span<MessageInFlight> messages)
    : call_(call), ranks_(ranks), messages_(messages) {
  const std::lock_guard lock(guard);
  current = this;
}

Waiting::Waiting(const char* what, const std::atomic<int>& world_peer)
    : call_(what), ranks_(2), world_peer_(&world_peer) {
  const std::lock_guard lock(guard);
  current = this;
}

Waiting::~Waiting() {
  {
    const std::lock_guard lock(guard);
    current = nullptr;
  }
  // A thread with patience waits beside the computation: who waits for it counts that.
  if (!is_patient()) add_waited_seconds(std::chrono::duration<double>(Clock::now() - since_).count());
  ended.fetch_add(1, std::memory_order_relaxed);
}

void Waiting::done(std::span<const int> messages) {
  const std::lock_guard lock(guard);
  for (const int at : messages) messages_[static_cast<std::size_t>(at)].done = true;
}

std::string Waiting::words() const {
  if (world_peer_ != nullptr) return fmt::format("waits for rank {} ({})", world_peer_->load(), call_);
  if (messages_.empty())
    return fmt::format("waits in {} for the {} ranks of its group ({} bytes)", call_, ranks_, bytes_);
  std::map<int, Traffic> from;
  std::map<int, Traffic> to;
  for (const MessageInFlight& message : messages_) {
    Traffic& traffic = (message.received ? from : to)[message.world_peer];
    traffic.expected += message.size;
    if (message.done) traffic.done += message.size;
  }
  const std::string received = open_traffic(from, "received");
  const std::string sent = open_traffic(to, "sent");
  return fmt::format("waits for {}{}{} ({})", received, !received.empty() && !sent.empty() ? "; " : "", sent, call_);
}

std::optional<std::string> what_is_waited_for() {
  const std::lock_guard lock(guard);
  if (current == nullptr) return std::nullopt;
  return current->words();
}

void add_waited_seconds(double seconds) {
  waited_ns.fetch_add(static_cast<std::int64_t>(seconds * 1e9), std::memory_order_relaxed);
}
double waited_seconds() {
  return static_cast<double>(waited_ns.load(std::memory_order_relaxed)) * 1e-9;
}
std::int64_t waits_ended() {
  return ended.load(std::memory_order_relaxed);
}

}  // namespace switchyard
