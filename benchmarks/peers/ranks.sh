#!/usr/bin/env bash
# weft's ZeRO 0-3 and PyTorch's DDP, ZeroRedundancyOptimizer and FSDP2 on two ranks of one thread, and both alone with two threads, on
# GPT-2 124M with 2 x 256 tokens a rank, one after the other in one run. On a processor that MKL does not know it keeps to AVX2; a
# second round lifts that. Usage: ranks.sh VENV [STEPS]    (make_venv.sh makes the environment; build with -DWEFT_BUILD_BENCHMARKS=ON)
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${1:?expected the folder that make_venv.sh made}
steps=${2:-5}
bench=build/benchmarks/bench_ranks
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
launch() { bash tests/mpi/run.sh mpirun 2 env OMP_NUM_THREADS=1 "$@"; }

echo "weft alone, two threads, 4 x 256 tokens:"
OMP_NUM_THREADS=2 "$bench" 0 "$steps" 4 256
for zero in 0 1 2 3; do launch "$bench" $zero "$steps" 2 256; done

echo 'int mkl_serv_intel_cpu_true(void) { return 1; }' > "$work/lift.c"
gcc -shared -fPIC -o "$work/lift.so" "$work/lift.c"
for lift in "" "$work/lift.so"; do
  [ -z "$lift" ] && echo "PyTorch as installed:" || echo "PyTorch with MKL lifted:"
  LD_PRELOAD=$lift OMP_NUM_THREADS=2 "$venv/bin/python" benchmarks/peers/ranks_torch.py single --steps "$steps" --batch 4
  for mode in ddp zero1 fsdp fsdp-reshard; do
    LD_PRELOAD=$lift OMP_NUM_THREADS=1 "$venv/bin/torchrun" --nproc-per-node 2 benchmarks/peers/ranks_torch.py $mode --steps "$steps" 2> "$work/log" || tail -n 3 "$work/log"
  done
done
