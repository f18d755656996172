#include "comm/transport/mpi_messages.h"

#include "comm/transport/patience.h"

#include <algorithm>
#include <span>

namespace switchyard {

// A failure elsewhere leaves messages behind that nobody will answer: they are then given up, as the job ends.
MpiMessages::~MpiMessages() {
  int ended = 0;
  if (open_ == 0 || MPI_Finalized(&ended) != MPI_SUCCESS || ended != 0) return;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    if (messages_[i].received) MPI_Cancel(&requests_[i]);
    MPI_Request_free(&requests_[i]);
  }
}

void MpiMessages::start_receive(int place, const ReceivePart& part) {
  open_parts_.resize(std::max(open_parts_.size(), usize(place + 1)), 0);
  for (std::int64_t begin = 0; begin < part.size.value(); begin += largest_) {
    const int now = checked_int(std::min(largest_, part.size.value() - begin), "a message's size");
    MPI_Request request = MPI_REQUEST_NULL;
    const int code = MPI_Irecv(static_cast<std::byte*>(part.data) + begin, now, MPI_BYTE, part.from.value(), tag,
                               communicator_, &request);
    started(code, request, in_flight(true, part.from, now), place);
    ++open_parts_[usize(place)];
  }
}

void MpiMessages::start_send(const SendPart& part) {
  for (std::int64_t begin = 0; begin < part.size.value(); begin += largest_) {
    const int now = checked_int(std::min(largest_, part.size.value() - begin), "a message's size");
    MPI_Request request = MPI_REQUEST_NULL;
    const int code = MPI_Isend(static_cast<const std::byte*>(part.data) + begin, now, MPI_BYTE, part.to.value(), tag,
                               communicator_, &request);
    started(code, request, in_flight(false, part.to, now), -1);
  }
}

bool MpiMessages::poll(std::vector<int>& arrived) {
  if (open_ > 0) settle(MPI_Testsome, "MPI_Testsome", &arrived);
  return open_ == 0;
}

// Some at a time, so that a rank which waits for ever can say for what.
void MpiMessages::wait() {
  if (open_ == 0) return;
  Waiting waiting("exchange", checked_int(isize(world_rank_of_.size()), "ranks"), messages_);
  waiting_ = &waiting;
  while (open_ > 0) {
    if (!is_patient()) {
      settle(MPI_Waitsome, "MPI_Waitsome", nullptr);
    } else if (settle(MPI_Testsome, "MPI_Testsome", nullptr) == 0) {
      pause_in_a_wait();
    }
  }
  waiting_ = nullptr;
}

MessageInFlight MpiMessages::in_flight(bool received, Rank peer, int size) const {
  return {.received = received, .peer = peer.value(), .world_peer = world_rank_of_[usize(peer.value())], .size = size};
}

void MpiMessages::started(int code, MPI_Request request, const MessageInFlight& message, int place) {
  if (code != MPI_SUCCESS) [[unlikely]]
    message_failed(code, message);
  requests_.push_back(request);
  messages_.push_back(message);
  place_of_.push_back(place);
  ++open_;
}

void MpiMessages::message_failed(int code, const MessageInFlight& message) const {
  mpi_failed(code, "rank {} could not {} rank {} a message of {} bytes", world_rank_of_[usize(rank_)],
             message.received ? "receive from" : "send to", message.world_peer, message.size);
}

int MpiMessages::settle(decltype(&MPI_Testsome) call, const char* name, std::vector<int>* arrived) {
  const int count = checked_int(isize(requests_.size()), "messages in one exchange");
  statuses_.resize(requests_.size());
  ended_.resize(requests_.size());
  int now = 0;
  const int code = call(count, requests_.data(), &now, ended_.data(), statuses_.data());
  if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) [[unlikely]]
    mpi_failed(code, "{} over {} ranks failed on rank {}", name, world_rank_of_.size(), rank_);
  if (now <= 0) return 0;
  const std::span<const int> ended = std::span(ended_).first(usize(now));
  for (std::size_t i = 0; i < ended.size(); ++i) {
    const MessageInFlight& message = messages_[usize(ended[i])];
    if (code == MPI_ERR_IN_STATUS && statuses_[i].MPI_ERROR != MPI_SUCCESS) [[unlikely]]
      message_failed(statuses_[i].MPI_ERROR, message);
    if (!message.received) continue;
    check_arrived(statuses_[i], message);
    const int place = place_of_[usize(ended[i])];
    if (--open_parts_[usize(place)] == 0 && arrived != nullptr) arrived->push_back(place);
  }
  open_ -= now;
  if (waiting_ != nullptr) {
    waiting_->done(ended);
  } else {
    for (const int at : ended) messages_[usize(at)].done = true;
  }
  return now;
}

void MpiMessages::check_arrived(const MPI_Status& status, const MessageInFlight& message) const {
  int arrived = 0;
  check_mpi(MPI_Get_count(&status, MPI_BYTE, &arrived), "MPI_Get_count");
  require(arrived == message.size, "rank {} expected a message of {} bytes from rank {} and got one of {}",
          world_rank_of_[usize(rank_)], message.size, message.world_peer, arrived);
}

}  // namespace switchyard
