// Collectives among ranks: threads of this process, or processes of an MPI launcher where the program links weft::mpi; their GPUs
// talk through NCCL where it links weft::nccl.
#pragma once

#include "weft/comm/call.hpp"
#include "weft/comm/communicator.hpp"
#include "weft/comm/engine.hpp"
#if defined(WEFT_MPI)
#include "weft/comm/heartbeat.hpp"
#include "weft/comm/mpi.hpp"
#endif
#if defined(WEFT_NCCL)
#include "weft/comm/nccl.hpp"
#endif
#include "weft/comm/reach.hpp"
#include "weft/comm/threads.hpp"
#include "weft/comm/transport.hpp"
#include "weft/comm/tree_reduce.hpp"
#include "weft/comm/world.hpp"
