// AdamW, learning-rate schedules, running means of weights.
#pragma once

#include "weft/optim/adamw.hpp"
#include "weft/optim/adamw_config.hpp"
#include "weft/optim/cut.hpp"
#include "weft/optim/ema.hpp"
#include "weft/optim/layout.hpp"
#include "weft/optim/loss_scale.hpp"
#include "weft/optim/offload.hpp"
#include "weft/optim/parallel_equal.hpp"
#include "weft/optim/rates.hpp"
#include "weft/optim/schedule.hpp"
#include "weft/optim/states.hpp"
#include "weft/optim/step_count.hpp"
#include "weft/optim/sum_tree.hpp"
#include "weft/optim/unit.hpp"
#include "weft/optim/units.hpp"
#include "weft/optim/weights.hpp"
