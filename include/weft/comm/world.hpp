// The ranks that this program was started among: processes of an MPI launcher, or this one alone. Processes are there where the
// program links weft::mpi, and where it links weft::nccl too, each has a GPU, chosen here, and NCCL between these.
#pragma once

#include <cstdlib>

#include "weft/comm/communicator.hpp"
#if defined(WEFT_MPI)
#include "weft/comm/mpi.hpp"
#endif
#if defined(WEFT_NCCL)
#include "weft/comm/nccl.hpp"
#endif

namespace weft::inline WEFT_ABI {

struct WorldOptions {
  double deadline = 600;  ///< seconds that a rank which is alive may let the others wait for it; environment: WEFT_DEADLINE
  double silence = 4;     ///< after so many seconds a rank that is not heard of has failed; environment: WEFT_SILENCE
};

namespace comm {
inline double from_environment(const char* name, double otherwise) {
  const char* const text = std::getenv(name);
  const double value = text != nullptr ? std::atof(text) : 0;
  return value > 0 ? value : otherwise;
}
/// How many processes a launcher started together: Open MPI's, MPICH's, or Slurm's through PMI or PMIx; 1 without one.
inline int launched_ranks() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", std::getenv("PMIX_RANK") != nullptr ? "SLURM_STEP_NUM_TASKS" : ""})
    if (const char* const text = std::getenv(name)) return std::max(1, std::atoi(text));
  return 1;
}
}  // namespace comm

/// The world. Threads are divided among the processes of a machine. A process that ends by an exception ends the others. Throws
/// CommError where a launcher started several processes but the program cannot see them.
inline std::unique_ptr<Communicator> open_world([[maybe_unused]] WorldOptions options = {}, [[maybe_unused]] Where where = here()) {
  if (comm::launched_ranks() == 1) return std::make_unique<Self>();
#if defined(WEFT_MPI)
  std::unique_ptr<comm::MpiTransport> mpi = comm::MpiTransport::open(comm::from_environment("WEFT_DEADLINE", options.deadline),
                                                                     comm::from_environment("WEFT_SILENCE", options.silence));
#if defined(WEFT_NCCL)
  comm::choose_gpu(mpi->place());
  auto world = std::make_unique<Communicator>(std::make_unique<comm::NcclTransport>(std::move(mpi)));
#else
  auto world = std::make_unique<Communicator>(std::move(mpi));
#endif
  if (world->size() != comm::launched_ranks())
    fail<CommError>("ranks", "expected MPI to see the " + std::to_string(comm::launched_ranks()) + " processes that a launcher started, it sees " +
                                 std::to_string(world->size()), where, "start the program with the launcher of the MPI that it was linked to");
  return world;
#else
  fail<CommError>("ranks", "expected a program that was built with MPI, since a launcher started " + std::to_string(comm::launched_ranks()) + " processes", where,
                  "install libopenmpi-dev or libmpich-dev, configure again, and link weft::mpi");
#endif
}

}  // namespace weft::inline WEFT_ABI
