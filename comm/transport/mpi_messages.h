// Messages of one Transport::start() over MPI, cut where they are too large for one MPI call. For mpi.cpp.
#pragma once

#include "comm/transport/mpi.h"
#include "comm/transport/waiting.h"

#include <cstdint>
#include <vector>

namespace switchyard {

class MpiMessages final : public Messages {
 public:
  static constexpr int tag = 1;

  // rank: this one's in the communicator. largest: bytes in one MPI call.
  MpiMessages(MPI_Comm communicator, int rank, const std::vector<int>& world_rank_of, std::int64_t largest)
      : communicator_(communicator), rank_(rank), world_rank_of_(world_rank_of), largest_(largest) {}
  ~MpiMessages() override;

  void start_receive(int place, const ReceivePart& part);
  void start_send(const SendPart& part);
  bool poll(std::vector<int>& arrived) override;
  void wait() override;

 private:
  MessageInFlight in_flight(bool received, Rank peer, int size) const;
  void started(int code, MPI_Request request, const MessageInFlight& message, int place);
  [[noreturn]] void message_failed(int code, const MessageInFlight& message) const;
  // call: MPI_Testsome or MPI_Waitsome. How many came to their end.
  int settle(decltype(&MPI_Testsome) call, const char* name, std::vector<int>* arrived);
  void check_arrived(const MPI_Status& status, const MessageInFlight& message) const;

  MPI_Comm communicator_;
  int rank_;
  const std::vector<int>& world_rank_of_;
  std::int64_t largest_;
  int open_ = 0;
  Waiting* waiting_ = nullptr;
  std::vector<MessageInFlight> messages_;
  std::vector<MPI_Request> requests_;
  std::vector<int> place_of_;    // by request: of a receive, in the caller's list
  std::vector<int> open_parts_;  // by place
  std::vector<MPI_Status> statuses_;
  std::vector<int> ended_;  // those that have just been sent or received
};

}  // namespace switchyard
