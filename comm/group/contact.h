// Whether the job's other hosts still answer, as the kernel sees it on the TCP connections that this process has with
// them, whoever made them. Where a host is cut off or down, nobody is told: what is sent is sent again, for a quarter
// of an hour, while all ranks wait. But a host that lives acknowledges what it gets, even where its processes stand
// still.
//
// Networks other than TCP have no such connections; nothing is said of them.
#pragma once

#include "comm/group/group.h"

#include <map>
#include <string>
#include <vector>

namespace switchyard {

// A TCP connection of this process.
struct Connection {
  std::string address;  // the other end's, in digits
  double silent_s = 0;  // since anything came from there
};
// All that are established. Those that are idle are made to ask for a sign of life every `ask_every_s` from now on, as
// TCP's keep-alive does. For any thread.
std::vector<Connection> tcp_connections(int ask_every_s);

// A host from which nothing comes.
struct SilentHost {
  std::string host;
  std::vector<int> ranks;  // that run on it
  double silent_s = 0;
};

class Contact {
 public:
  // Collective: each rank learns the others' addresses. hosts: by rank. ask_every_s: see tcp_connections(); of a host
  // that lives, nothing shorter can be told from silence.
  Contact(const Group& world, const std::vector<std::string>& hosts, int ask_every_s);

  bool has_others() const { return others_ > 0; }
  // The hosts of which every connection has been silent for at least `seconds`, in the order of their first ranks.
  std::vector<SilentHost> silent(double seconds) const;
  // "nothing has come from n2 (ranks 2, 3) for 21 s, not even an acknowledgement: that host is down or cut off"
  std::string words(const std::vector<SilentHost>& silent) const;

  // The pure parts. addresses: of each rank's host, with spaces between. Those that several hosts have say nothing
  // (a bridge that every one of them has for its own containers), and this host's own lead nowhere else.
  Contact(int rank, const std::vector<std::string>& hosts, const std::vector<std::string>& addresses);
  std::vector<SilentHost> silent(double seconds, const std::vector<Connection>& connections) const;

 private:
  int ask_every_s_ = 0;
  std::string host_;  // this one's name
  int others_ = 0;    // hosts besides this
  std::map<std::string, std::vector<int>> ranks_on_;
  std::map<std::string, std::string> host_at_;  // by address
};

}  // namespace switchyard
