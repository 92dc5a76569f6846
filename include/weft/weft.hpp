// Everything.
#pragma once

#include "weft/comm.hpp"
#include "weft/core.hpp"
#include "weft/io.hpp"
#include "weft/nn.hpp"
#include "weft/ops.hpp"
#include "weft/optim.hpp"
#include "weft/tape.hpp"
#include "weft/train.hpp"

#if defined(WEFT_COMPILED) && !defined(WEFT_COMPILING_MODELS)
#include "weft/compiled_model.hpp"
#endif
