#include "comm/group/contact.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>
#include <sstream>

#include <arpa/inet.h>
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// The address in digits; nothing where it is none of IP. An IPv4 address that is written as one of IPv6 is itself.
std::string digits(const sockaddr* address) {
  const socklen_t size = address->sa_family == AF_INET    ? socklen_t{sizeof(sockaddr_in)}
                         : address->sa_family == AF_INET6 ? socklen_t{sizeof(sockaddr_in6)}
                                                          : 0;
  char text[NI_MAXHOST] = "";
  if (size == 0 || getnameinfo(address, size, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) != 0) return "";
  const std::string mapped = "::ffff:";
  const std::string found = text;
  return found.starts_with(mapped) ? found.substr(mapped.size()) : found;
}

// This host's, without those that mean "here" on every host.
std::string own_addresses() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return "";
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, freeifaddrs);
  std::string all;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    if (const std::string address = digits(entry->ifa_addr); !address.empty()) all += address + " ";
  }
  return all;
}

void ask_for_signs(int socket, int every_s) {
  int on = 0;
  socklen_t size = sizeof(on);
  if (getsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, &size) != 0 || on != 0) return;
  // So many that may stay without an answer: the kernel is not to end the connection before this program has spoken.
  constexpr int unanswered = 127;
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &every_s, sizeof(every_s));
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof(every_s));
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &unanswered, sizeof(unanswered));
  on = 1;
  setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

}  // namespace

std::vector<Connection> tcp_connections(int ask_every_s) {
  std::vector<Connection> found;
  std::error_code fault;
  for (fs::directory_iterator entry("/proc/self/fd", fault), end; !fault && entry != end; entry.increment(fault)) {
    std::error_code closed;  // meanwhile, by the thread that it belongs to
    if (!fs::read_symlink(entry->path(), closed).native().starts_with("socket:")) continue;
    const int socket = std::stoi(entry->path().filename());
    sockaddr_storage peer{};
    socklen_t size = sizeof(peer);
    if (getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &size) != 0) continue;
    const std::string address = digits(reinterpret_cast<const sockaddr*>(&peer));
    tcp_info info{};
    size = sizeof(info);
    if (address.empty() || getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) continue;
    if (info.tcpi_state != TCP_ESTABLISHED) continue;
    ask_for_signs(socket, ask_every_s);
    const auto silent_ms = std::min(info.tcpi_last_ack_recv, info.tcpi_last_data_recv);
    found.push_back({.address = address, .silent_s = static_cast<double>(silent_ms) * 1e-3});
  }
  return found;
}

Contact::Contact(const Group& world, const std::vector<std::string>& hosts, int ask_every_s)
    : Contact(world.rank().value(), hosts, world.gather(own_addresses())) {
  ask_every_s_ = ask_every_s;
}

Contact::Contact(int rank, const std::vector<std::string>& hosts, const std::vector<std::string>& addresses)
    : host_(hosts[usize(rank)]) {
  std::set<std::string> of_several;
  for (int r = 0; r < isize(hosts.size()); ++r) {
    ranks_on_[hosts[usize(r)]].push_back(r);
    std::istringstream words(addresses[usize(r)]);
    for (std::string address; words >> address;) {
      const auto [known, added] = host_at_.emplace(address, hosts[usize(r)]);
      if (!added && known->second != hosts[usize(r)]) of_several.insert(address);
    }
  }
  for (const std::string& address : of_several) host_at_.erase(address);
  std::erase_if(host_at_, [&](const auto& entry) { return entry.second == host_; });
  others_ = static_cast<int>(ranks_on_.size()) - 1;
}

std::vector<SilentHost> Contact::silent(double seconds) const {
  if (!has_others()) return {};
  return silent(seconds, tcp_connections(ask_every_s_));
}

std::vector<SilentHost> Contact::silent(double seconds, const std::vector<Connection>& connections) const {
  std::map<std::string, double> least;  // one connection on which something comes is enough
  for (const Connection& connection : connections) {
    const auto host = host_at_.find(connection.address);
    if (host == host_at_.end()) continue;
    const auto [known, added] = least.emplace(host->second, connection.silent_s);
    if (!added) known->second = std::min(known->second, connection.silent_s);
  }
  std::vector<SilentHost> found;
  for (const auto& [host, silent_s] : least) {
    if (silent_s >= seconds) found.push_back({.host = host, .ranks = ranks_on_.at(host), .silent_s = silent_s});
  }
  std::sort(found.begin(), found.end(),
            [](const SilentHost& a, const SilentHost& b) { return a.ranks.front() < b.ranks.front(); });
  return found;
}

std::string Contact::words(const std::vector<SilentHost>& silent) const {
  std::string names;
  double shortest = silent.empty() ? 0 : silent.front().silent_s;
  for (const SilentHost& one : silent) {
    names += fmt::format("{}{} (rank{} {})", names.empty() ? "" : ", ", one.host, one.ranks.size() > 1 ? "s" : "",
                         fmt::join(one.ranks, ", "));
    shortest = std::min(shortest, one.silent_s);
  }
  const char* cause = silent.size() == 1               ? "that host is down or cut off"
                      : isize(silent.size()) < others_ ? "those hosts are down or cut off"
                                                       : "they are, or this host is, cut off";
  return fmt::format("nothing has come from {} for {:.0f} s, not even an acknowledgement: {}", names, shortest, cause);
}

}  // namespace switchyard
