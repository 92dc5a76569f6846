// How the processes of a job know that the others live: each sends a datagram to the next one in a ring a few times a second, from a
// thread of its own, so that a long computation is no failure. What one learns of a failure it tells all.
#pragma once

#include <algorithm>
#include <arpa/inet.h>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ifaddrs.h>
#include <mutex>
#include <net/if.h>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "weft/core/error.hpp"

namespace weft::inline WEFT_ABI::comm {

class Heartbeat {
 public:
  struct Address {
    std::uint32_t host = 0;  ///< IPv4, in network order
    std::uint16_t port = 0;
  };

  /// Opens a port; `local`: all processes run on this machine. Throws CommError.
  explicit Heartbeat(bool local) : socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = local ? htonl(INADDR_LOOPBACK) : htonl(INADDR_ANY);
    socklen_t size = sizeof any;
    if (socket_ < 0 || ::bind(socket_, reinterpret_cast<sockaddr*>(&any), size) < 0 || ::getsockname(socket_, reinterpret_cast<sockaddr*>(&any), &size) < 0)
      throw CommError(std::string("[ranks] expected a UDP port to tell other ranks that this one lives, got: ") + std::strerror(errno));
    mine_ = {local ? htonl(INADDR_LOOPBACK) : host_address(), any.sin_port};
  }
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;
  ~Heartbeat() {
    if (thread_.joinable()) {
      send(next(), leaving, "");
      stop_ = true;
      thread_.join();
    }
    if (socket_ >= 0) ::close(socket_);
  }

  Address address() const { return mine_; }

  /// Begins: a rank that is not heard of for `silence` seconds has failed. After a failure the process has as long to end by itself;
  /// then it is ended here, with exit code 75.
  void start(int rank, std::vector<Address> all, std::uint64_t job, double silence) {
    rank_ = rank, all_ = std::move(all), job_ = job, silence_ = silence;
    thread_ = std::thread([this] { run(); });
  }
  /// Tells every rank, and this one, that the job cannot go on.
  void fail(const std::string& why) noexcept {
    if (!note(why)) return;
    for (int repeat = 0; repeat < 3; ++repeat)  // a datagram may be lost
      for (std::size_t r = 0; r < all_.size(); ++r)
        if (static_cast<int>(r) != rank_) send(r, failed, why);
  }
  /// True iff somebody failed; then says who and why.
  bool failure(std::string& why) const {
    if (!has_failed_.load(std::memory_order_acquire)) return false;
    why = why_;
    return true;
  }

 private:
  enum Kind : std::uint32_t { alive = 1, leaving, failed };
  struct Packet {
    std::uint64_t job;
    std::uint32_t kind;
    std::int32_t rank;
    char text[1000];
  };
  using Clock = std::chrono::steady_clock;

  std::size_t next() const { return static_cast<std::size_t>(rank_ + 1) % all_.size(); }
  int before() const { return (rank_ + static_cast<int>(all_.size()) - 1) % static_cast<int>(all_.size()); }

  void send(std::size_t to, Kind kind, const std::string& text) noexcept {
    Packet packet{job_, kind, rank_, {}};
    std::strncpy(packet.text, text.c_str(), sizeof packet.text - 1);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = all_[to].host;
    address.sin_port = all_[to].port;
    const std::size_t size = offsetof(Packet, text) + std::strlen(packet.text) + 1;
    ::sendto(socket_, &packet, size, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  /// The first failure counts.
  bool note(const std::string& why) noexcept {
    const std::lock_guard lock(mutex_);
    if (has_failed_.load()) return false;
    why_ = why;
    failed_at_ = Clock::now();
    has_failed_.store(true, std::memory_order_release);
    return true;
  }

  void run() {
    const auto silence = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(silence_));
    const int interval_ms = std::max(1, static_cast<int>(silence_ * 1000 / 8));
    auto heard = Clock::now();
    bool listening = true;  // until the rank before leaves in order
    while (!stop_) {
      send(next(), alive, "");
      pollfd ready{socket_, POLLIN, 0};
      const auto until = Clock::now() + std::chrono::milliseconds(interval_ms);
      while (!stop_ && Clock::now() < until) {
        if (::poll(&ready, 1, std::min(interval_ms, 50)) <= 0) continue;
        Packet packet{};
        if (::recv(socket_, &packet, sizeof packet - 1, MSG_DONTWAIT) < static_cast<ssize_t>(offsetof(Packet, text)) || packet.job != job_) continue;
        if (packet.kind == failed) note(packet.text);
        else if (packet.rank == before()) heard = Clock::now(), listening = packet.kind != leaving;
      }
      const auto now = Clock::now();
      if (listening && now - heard > silence)
        fail("[ranks] rank " + std::to_string(before()) + " of " + std::to_string(all_.size()) + " was not heard of for " + std::to_string(silence_) +
             " s: it was killed or stopped, or its machine cannot be reached");
      if (has_failed_ && now - failed_at_ > silence) {
        std::fprintf(stderr, "weft: rank %d ends here, since it did not end by itself\n%s\n", rank_, why_.c_str());
        std::_Exit(75);
      }
    }
  }

  /// The first address that other machines may know this one by.
  static std::uint32_t host_address() {
    std::uint32_t found = htonl(INADDR_LOOPBACK);
    ifaddrs* all = nullptr;
    if (::getifaddrs(&all) != 0) return found;
    for (const ifaddrs* a = all; a != nullptr; a = a->ifa_next)
      if (a->ifa_addr != nullptr && a->ifa_addr->sa_family == AF_INET && (a->ifa_flags & IFF_UP) != 0 && (a->ifa_flags & IFF_LOOPBACK) == 0) {
        sockaddr_in address{};
        std::memcpy(&address, a->ifa_addr, sizeof address);
        found = address.sin_addr.s_addr;
        break;
      }
    ::freeifaddrs(all);
    return found;
  }

  int socket_;
  Address mine_;
  int rank_ = 0;
  std::vector<Address> all_;
  std::uint64_t job_ = 0;
  double silence_ = 0;
  std::mutex mutex_;
  std::string why_;  // written once, before has_failed_
  Clock::time_point failed_at_;
  std::atomic<bool> has_failed_{false}, stop_{false};
  std::thread thread_;
};

}  // namespace weft::inline WEFT_ABI::comm
