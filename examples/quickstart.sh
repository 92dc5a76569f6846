#!/usr/bin/env bash
# Installs what is missing, builds the training program into build/, and trains a small transformer for about two minutes on the
# project's own sources. Arguments go on to the program instead: bash examples/quickstart.sh --text novel.txt --steps 5000
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

bash "$root/cmake/install-packages.sh" g++ cmake ninja-build nlohmann-json3-dev libxxhash-dev libcli11-dev

# A build folder that tests/run.sh has made keeps its tests.
[ -f "$root/build/CMakeCache.txt" ] || cmake -S "$root" -B "$root/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DWEFT_BUILD_TESTS=OFF
cmake --build "$root/build" --parallel "$(nproc)" --target train

if [ $# -eq 0 ]; then
  cd "$root"
  set -- --text include examples README.md --out build/quickstart
fi
exec "$root/build/examples/train" "$@"
