// What was done: the tape, gradients, recompute, the check of gradients against differences.
#pragma once

#include "weft/tape/checkpoint.hpp"
#include "weft/tape/grad.hpp"
#include "weft/tape/gradcheck.hpp"
#include "weft/tape/hook.hpp"
#include "weft/tape/loss.hpp"
#include "weft/tape/op.hpp"
#include "weft/tape/state.hpp"
#include "weft/tape/tape.hpp"
