// NCCL between ranks: a rank alone, which talks to itself, and one rank a GPU where there are several.
#define WEFT_DEVICE cuda
#include "../optim/training.hpp"
#include "collectives.hpp"
#include "weft/comm/nccl.hpp"
#include "weft/weft.hpp"

using namespace weft;

namespace {

int gpus() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}
/// f(ranks) on this thread's rank, with a GPU of its own.
template <class F>
void with_nccl(Communicator& threads, F&& f) {
  comm::choose_gpu(threads.rank());
  comm::Nccl ranks(threads);
  f(ranks);
}
/// A transport of one rank.
std::unique_ptr<comm::Transport> alone() {
  return std::make_unique<comm::NcclTransport>(std::make_unique<comm::ThreadsTransport>(std::make_shared<comm::ThreadsWorld>(1, ThreadsOptions{}), 0));
}

}  // namespace

TEST_CASE("a rank's messages to itself go through NCCL, after what its stream was asked for") {
  const std::unique_ptr<comm::Transport> transport = alone();
  CHECK(transport->reaches_gpu());
  std::uint64_t number = 0;
  for (const Index n : {1, 1000, 3'000'000})
    for (const bool in_pairs : {false, true}) {  // a send and a receive pass through the host's memory
      INFO(n << (in_pairs ? " in a pair" : ""));
      const auto x = to<cuda>(randn<float, cpu>({n}, 3));
      const Tensor<float> sum = x + x, from = sum * 2, got({n});  // is being computed when the message is begun
      comm::Transfer out, in;
      for (comm::Transfer* t : {&out, &in}) {
        t->call = {.kind = in_pairs ? Collective::send : Collective::all_to_all, .dtype = Dtype::f32, .count = n, .number = ++number, .gpu = true};
        t->channel = in_pairs ? 1 : 0, t->bytes = static_cast<std::size_t>(n) * sizeof(float), t->reach = &comm::reach_of<cuda>();
      }
      in.call = out.call;
      out.from = reinterpret_cast<const std::byte*>(from.data()), in.to = reinterpret_cast<std::byte*>(got.data());
      transport->send(out), transport->receive(in);
      while (!out.done || !in.done)
        if (!transport->advance()) transport->pause();
      CHECK(test::same_bits(got.to_vector(), from.to_vector()));
    }
}

TEST_CASE("several exchanges at once, and one that is withdrawn") {
  std::unique_ptr<comm::Transport> transport = alone();
  const Index n = 100'000;
  std::vector<Tensor<float>> from, to;
  std::vector<std::unique_ptr<comm::Transfer>> transfers;
  for (std::uint64_t k = 0; k < 8; ++k) {
    from.push_back(weft::to<cuda>(randn<float, cpu>({n}, k))), to.push_back(Tensor<float>({n}));
    for (const bool sends : {true, false}) {
      comm::Transfer& t = *transfers.emplace_back(std::make_unique<comm::Transfer>());
      t.call = {.kind = Collective::all_gather, .dtype = Dtype::f32, .count = n, .number = k + 1, .gpu = true};
      t.bytes = static_cast<std::size_t>(n) * sizeof(float), t.reach = &comm::reach_of<cuda>();
      if (sends) t.from = reinterpret_cast<const std::byte*>(from.back().data()), transport->send(t);
      else t.to = reinterpret_cast<std::byte*>(to.back().data()), transport->receive(t);
    }
  }
  while (!std::all_of(transfers.begin(), transfers.end(), [](const auto& t) { return t->done.load(); }))
    if (!transport->advance()) transport->pause();
  for (std::size_t k = 0; k < 8; ++k) CHECK(test::same_bits(to[k].to_vector(), from[k].to_vector()));

  comm::Transfer lost;  // of which the other half never comes
  lost.call = {.kind = Collective::all_gather, .number = 9, .gpu = true};
  lost.bytes = 4, lost.reach = &comm::reach_of<cuda>(), lost.to = reinterpret_cast<std::byte*>(to[0].data());
  transport->receive(lost);
  CHECK_FALSE(transport->advance());
  transport->withdraw(lost);
  transport.reset();
  CHECK_FALSE(lost.done);
}

TEST_CASE("one rank with NCCL: collectives, and AdamW's ZeRO 0 to 3 with the bits of a rank alone") {
  for (const Index size : {12, 60'000}) {
    test::check_collectives<float>(1, size, [](Communicator& threads, auto&& f) { with_nccl(threads, f); });
    test::check_collectives<bf16>(1, size, [](Communicator& threads, auto&& f) { with_nccl(threads, f); });
  }
  for (const int zero : {0, 1, 2, 3}) {
    const test::Plan plan{.zero = zero};
    INFO(test::name(plan));
    Self self;
    comm::Nccl ranks(self);
    auto expected = test::room_for<float>(plan), got = expected;
    test::train_rank<float>(plan, self, expected);
    test::train_rank<float>(plan, ranks, got);
    CHECK(got == expected);
  }
}

TEST_CASE("a rank a GPU: the bits of threads on the host, and of one rank") {
  const int most = std::min(gpus(), 8);
  if (most < 2) WARN("one GPU: nothing to do");
  for (int n = 2; n <= most; ++n)
    for (const Index size : {12, 60'000, 3'000'000}) test::check_collectives<float>(n, size, [](Communicator& threads, auto&& f) { with_nccl(threads, f); });
  auto one = test::room_for<float>({});
  run_ranks(1, [&](Communicator& rank) { test::train_rank<float>({}, rank, one); });
  for (int n = 2; n <= std::min(most, 4); n *= 2)
    for (const int zero : {0, 1, 2, 3}) {
      const test::Plan plan{.ranks = n, .zero = zero};
      INFO(test::name(plan));
      auto got = test::room_for<float>(plan);
      run_ranks(n, [&](Communicator& threads) { with_nccl(threads, [&](Communicator& ranks) { test::train_rank<float>(plan, ranks, got); }); });
      CHECK(got == one);
    }
}
