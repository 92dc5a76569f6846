#!/usr/bin/env bash
# Installs what is missing, builds and runs all tests. Arguments go on to ctest: bash tests/run.sh -L ops
set -euo pipefail
cd "$(dirname "$0")/.."

bash cmake/install-packages.sh g++ cmake ninja-build libdnnl-dev nlohmann-json3-dev libxxhash-dev libcli11-dev catch2 ccache \
  clang-16 libomp-16-dev libopenmpi-dev openmpi-bin

options=(-DWEFT_BUILD_TESTS=ON -DWEFT_BUILD_EXAMPLES=ON -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
[ -f build/CMakeCache.txt ] || options+=(-G Ninja -DCMAKE_BUILD_TYPE=Release)
cmake -S . -B build "${options[@]}"
cmake --build build --parallel "$(nproc)"
ctest --test-dir build --output-on-failure -j2 "$@"
