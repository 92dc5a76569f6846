#!/usr/bin/env bash
# All that needs a GPU, on one: the tests, the sanitizer, the benchmarks and PyTorch's figures beside them, from a build with
# -DWEFT_CUDA=ON -DWEFT_BUILD_TESTS=ON -DWEFT_BUILD_BENCHMARKS=ON, which may have been made elsewhere. Nothing is compiled here.
# Usage: gpu.sh BUILD [PART...]    (tests sanitizer bench torch; default: all)
set -uo pipefail
build=${1:?expected the folder of the build}
shift
parts=${*:-tests sanitizer bench torch}
root=$(cd "$(dirname "$0")/../.." && pwd)
failed=0
for part in $parts; do
  echo "== $part"
  case $part in
    tests)
      logs=$(mktemp -d)
      for test in "$build"/tests/test_cuda_*; do  # side by side: most of their time is the host's
        { OMP_WAIT_POLICY=passive OMP_NUM_THREADS=$((($(nproc) + 3) / 4)) timeout 900 "$test" > "$logs/$(basename "$test")" 2>&1 || touch "$logs/failed"; } &
      done
      wait
      [ ! -e "$logs/failed" ] || failed=1
      rm -f "$logs/failed"
      for log in "$logs"/*; do echo "-- $(basename "$log")"; cat "$log"; done
      rm -rf "$logs"
      # In f16 a checkpoint holds the loss scale too: a run that lost its last one ends as it did before.
      runs=$(mktemp -d)
      train() { "$build"/examples/train_cuda "$@" > "$runs/log" 2>&1 || { failed=1; cat "$runs/log"; }; }
      train --text "$root/README.md" --dtype f16 --steps 20 --save-every 10 --out "$runs/run"
      mv "$runs/run/model.safetensors" "$runs/before"
      rm -r "$runs/run/$(ls "$runs/run" | grep '^step-' | sort | tail -n 1)"
      train --resume --out "$runs/run"
      cmp "$runs/before" "$runs/run/model.safetensors" && echo "-- train_cuda goes on in f16 with the same bits" || failed=1
      rm -rf "$runs" ;;
    sanitizer)
      for tool in memcheck racecheck; do
        for of in ops:elementwise ops:rows ops:products ops:attention "ops:attention with a window and documents" ops:indices ops:experts ops:reductions \
                  "adamw:a launch takes many parameters*" "adamw:squared norms*" "experts:expert_swiglu of views" "experts:grouped_linear of many experts and rows" "experts:gradients of experts' weights are added to"; do
          program=${of%%:*} test=${of#*:} log=$(mktemp)
          # racecheck does not follow the barriers on which bulk copies arrive: cuBLASLt's (nvjet), cuDNN's and our once_backward's are reported.
          if compute-sanitizer --tool $tool --error-exitcode 9 "$build"/tests/test_cuda_$program "$test,$test - float,$test - bf16,$test - f16" > "$log" 2>&1 ||
             { [ $tool = racecheck ] && grep -q "All tests passed" "$log" && ! grep "Error: Race" "$log" | grep -qvE 'nvjet|cudnn|once_backward'; }; then echo "$tool, $test: clean"
          else failed=1; echo "$tool, $test:"; grep -v "^  *\(Host\|Saved host\)" "$log" | head -n 30; fi
          rm -f "$log"
        done
      done ;;
    bench) "$build/benchmarks/bench_cuda" || failed=1 ;;
    torch) python3 "$root/benchmarks/peers/gpu_torch.py" || failed=1 ;;
    *) echo "expected tests, sanitizer, bench or torch, got $part"; exit 2 ;;
  esac
done
exit $failed
