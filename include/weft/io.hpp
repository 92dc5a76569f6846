// Files: safetensors, checkpoints, tokenizers.
#pragma once

#include "weft/io/checkpoint.hpp"
#include "weft/io/checkpoint_folder.hpp"
#include "weft/io/file.hpp"
#include "weft/io/hash.hpp"
#include "weft/io/json_text.hpp"
#include "weft/io/manifest.hpp"
#include "weft/io/safetensors.hpp"
#include "weft/io/tensors.hpp"
#include "weft/io/tokenizer.hpp"
