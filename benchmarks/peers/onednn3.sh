#!/usr/bin/env bash
# The matrix products' test against oneDNN 3.x, which Debian 12 does not have: its headers and library come from PyPI into a virtual
# environment. Usage: onednn3.sh [FOLDER] (default: build/onednn3). ctest runs the same test against Debian's 2.6.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-build/onednn3}
[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
"$folder/bin/pip" install --quiet 'onednn-cpu-gomp>=2023.2' 'onednn-devel-cpu-gomp>=2023.2'
header=$(find "$folder" -name dnnl.h | head -n 1)
library=$(find "$folder" -name 'libdnnl.so*' | sort | tail -n 1)
[ -n "$header" ] && [ -n "$library" ] || { echo "expected dnnl.h and libdnnl.so under $folder" >&2; exit 1; }
grep -h "define DNNL_VERSION_M" $(find "$folder" -name dnnl_version.h)
"${CXX:-g++}" -std=c++20 -O2 -fopenmp -ffp-contract=off -DWEFT_ONEDNN -Iinclude -Itests -isystem "$(dirname "$header")" \
  tests/kernels/cpu/matmul.cpp tests/main.cpp "$library" -Wl,-rpath,"$(realpath "$(dirname "$library")")" -o "$folder/matmul"
OMP_WAIT_POLICY=passive "$folder/matmul"
