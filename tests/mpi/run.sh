#!/usr/bin/env bash
# Runs a program on some ranks by MPI's launcher, also as root and on fewer cores. Usage: run.sh LAUNCHER RANKS PROGRAM ARGUMENTS...
set -u
launcher=$1
ranks=$2
shift 2
options=()
if "$launcher" --version 2>&1 | grep -q 'Open MPI\|OpenRTE'; then  # MPICH allows both anyway
  options=(--oversubscribe --bind-to none)
  [ "$(id -u)" != 0 ] || options+=(--allow-run-as-root)
fi
exec "$launcher" "${options[@]}" -n "$ranks" "$@"
