// Collectives among ranks. For processes see weft/comm/mpi.hpp, which needs MPI.
#pragma once

#include "weft/comm/call.hpp"
#include "weft/comm/communicator.hpp"
#include "weft/comm/threads.hpp"
#include "weft/comm/transport.hpp"
#include "weft/comm/tree_reduce.hpp"
