// Which hosts are called silent, and what the kernel says of a connection.
#include "comm/group/contact.h"

#include "tests/support/catch.h"

#include <algorithm>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

namespace switchyard {
namespace {

// Ranks 0, 3 on north, 1, 2 on south, 4 on west; each has a bridge of its own with the same address.
const std::vector<std::string> hosts = {"north", "south", "south", "north", "west"};
const std::vector<std::string> addresses = {"10.0.0.1 172.17.0.1 fd00::1", "10.0.0.2 172.17.0.1", "10.0.0.2 172.17.0.1",
                                            "10.0.0.1 172.17.0.1 fd00::1", "10.0.0.3 172.17.0.1 10.1.0.3"};

std::vector<std::string> silent_hosts(const Contact& contact, const std::vector<Connection>& connections,
                                      double seconds = 10) {
  std::vector<std::string> names;
  for (const SilentHost& one : contact.silent(seconds, connections)) names.push_back(one.host);
  return names;
}
using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("a host is silent where all connections with it are") {
  const Contact contact(0, hosts, addresses);
  CHECK(contact.has_others());
  CHECK(silent_hosts(contact, {}).empty());
  CHECK(silent_hosts(contact, {{"10.0.0.2", 9.9}, {"10.0.0.3", 0.0}}).empty());
  CHECK(silent_hosts(contact, {{"10.0.0.2", 10.0}, {"10.0.0.3", 0.0}}) == Names{"south"});
  CHECK(silent_hosts(contact, {{"10.0.0.2", 30.0}, {"10.0.0.2", 1.0}}).empty());
  CHECK(silent_hosts(contact, {{"10.0.0.3", 30.0}, {"10.1.0.3", 20.0}, {"10.0.0.2", 11.0}}) == Names{"south", "west"});
  // Addresses of this host, of several hosts and of strangers say nothing.
  CHECK(silent_hosts(contact, {{"10.0.0.1", 99}, {"172.17.0.1", 99}, {"8.8.8.8", 99}, {"fd00::1", 99}}).empty());
  CHECK(silent_hosts(Contact(1, hosts, addresses), {{"fd00::1", 99}}) == Names{"north"});
  CHECK_FALSE(Contact(0, {"north", "north"}, {"10.0.0.1", "10.0.0.1"}).has_others());
}

TEST_CASE("a silent host is told of with its ranks and its time") {
  const Contact contact(0, hosts, addresses);
  const auto words = [&](const std::vector<Connection>& connections) {
    return contact.words(contact.silent(10, connections));
  };
  CHECK(words({{"10.0.0.2", 21.4}, {"10.0.0.2", 35.0}, {"10.0.0.3", 1}}) ==
        "nothing has come from south (ranks 1, 2) for 21 s, not even an acknowledgement: that host is down or cut off");
  CHECK(words({{"10.0.0.2", 21.4}, {"10.0.0.3", 20.2}}) ==
        "nothing has come from south (ranks 1, 2), west (rank 4) for 20 s, not even an acknowledgement: they are, or "
        "this host is, cut off");
}

TEST_CASE("the kernel tells of a connection, which is asked for signs of life from then on") {
  const int listening = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 6);  // 127.0.0.7, which nobody else uses
  socklen_t size = sizeof(address);
  REQUIRE(bind(listening, reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(listen(listening, 1) == 0);
  REQUIRE(getsockname(listening, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  const auto found = [] {
    const std::vector<Connection> all = tcp_connections(3);
    return std::count_if(all.begin(), all.end(),
                         [](const Connection& one) { return one.address == "127.0.0.7" && one.silent_s < 5; });
  };
  CHECK(found() == 0);  // one that listens is no connection
  const int own = socket(AF_INET, SOCK_STREAM, 0);
  REQUIRE(connect(own, reinterpret_cast<sockaddr*>(&address), size) == 0);
  const int other = accept(listening, nullptr, nullptr);
  CHECK(found() == 1);
  int on = 0;
  int idle_s = 0;
  size = sizeof(int);
  REQUIRE(getsockopt(own, SOL_SOCKET, SO_KEEPALIVE, &on, &size) == 0);
  REQUIRE(getsockopt(own, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, &size) == 0);
  CHECK(on == 1);
  CHECK(idle_s == 3);
  for (const int socket : {own, other, listening}) close(socket);
  CHECK(found() == 0);
}

}  // namespace switchyard
