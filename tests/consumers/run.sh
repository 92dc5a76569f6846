#!/usr/bin/env bash
# Builds main.cpp as a user would and runs it: run.sh find_package|find_package_plain|add_subdirectory|include SOURCE BINARY COMPILER
# SOURCE is weft's, BINARY a folder that is made anew.
set -euo pipefail
how=$1 source=$2 binary=$3 compiler=$4
here=$source/tests/consumers

rm -rf "$binary"
mkdir -p "$binary"
generator=()
command -v ninja > /dev/null && generator=(-G Ninja)

build() {  # folder, options
  cmake -S "$here/$1" -B "$binary/build" "${generator[@]}" -DCMAKE_CXX_COMPILER="$compiler" "${@:2}"
  cmake --build "$binary/build"
  "$binary/build/consumer"
}

case $how in
  find_package*)
    cmake -S "$source" -B "$binary/weft" "${generator[@]}" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_INSTALL_PREFIX="$binary/prefix" \
      -DWEFT_BUILD_TESTS=OFF -DWEFT_BUILD_EXAMPLES=OFF
    cmake --install "$binary/weft"
    mv "$binary/prefix" "$binary/moved"  # an installation may be moved
    onednn=AUTO
    [ "$how" = find_package ] || onednn=OFF
    build find_package -DCMAKE_BUILD_TYPE=Debug -DCMAKE_PREFIX_PATH="$binary/moved" -DWEFT_ONEDNN=$onednn
    ;;
  add_subdirectory) build add_subdirectory -DCMAKE_BUILD_TYPE=Release -DWEFT="$source" ;;
  include)
    "$compiler" -std=c++20 -O2 -fopenmp -ffp-contract=off -I "$source/include" "$here/main.cpp" -o "$binary/consumer"
    "$binary/consumer"
    ;;
  *) echo "expected find_package, find_package_plain, add_subdirectory or include, got $how" >&2; exit 2 ;;
esac
