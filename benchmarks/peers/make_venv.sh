#!/usr/bin/env bash
# Makes a virtual environment with the Python libraries that weft is compared with: make_venv.sh [FOLDER] (default: build/peers).
set -euo pipefail

folder=${1:-build/peers}
if ! python3 -c 'import ensurepip' 2>/dev/null; then
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get update -qq
  $sudo apt-get install -y --no-install-recommends python3-venv
fi
[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
"$folder/bin/python" -c 'import torch' 2>/dev/null || "$folder/bin/pip" install --quiet torch
"$folder/bin/pip" install --quiet jax numpy safetensors transformers tokenizers
"$folder/bin/python" - <<'PYTHON'
import jax, numpy, safetensors, tokenizers, torch, transformers
print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
for module in (jax, numpy, safetensors, transformers, tokenizers):
    print(module.__name__, module.__version__)
PYTHON
