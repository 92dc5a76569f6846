// Modules, from a linear layer to a decoder-only transformer.
#pragma once

#include "weft/nn/attention.hpp"
#include "weft/nn/audit.hpp"
#include "weft/nn/block.hpp"
#include "weft/nn/embedding.hpp"
#include "weft/nn/gradcheck_model.hpp"
#include "weft/nn/linear.hpp"
#include "weft/nn/mlp.hpp"
#include "weft/nn/module.hpp"
#include "weft/nn/moe.hpp"
#include "weft/nn/norm.hpp"
#include "weft/nn/parameter.hpp"
#include "weft/nn/rotary_embedding.hpp"
#include "weft/nn/sample.hpp"
#include "weft/nn/state_dict.hpp"
#include "weft/nn/transformer.hpp"
#include "weft/nn/transformer_config.hpp"
