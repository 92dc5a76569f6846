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
      for test in "$build"/tests/test_cuda_*; do
        echo "-- $(basename "$test")"
        OMP_WAIT_POLICY=passive "$test" || failed=1
      done ;;
    sanitizer)
      for tool in memcheck racecheck; do
        for of in ops:elementwise ops:rows ops:products ops:attention "ops:attention with a window and documents" ops:indices ops:experts ops:reductions \
                  "experts:expert_swiglu of views" "experts:grouped_linear of many experts and rows" "experts:gradients of experts' weights are added to"; do
          program=${of%%:*} test=${of#*:} log=$(mktemp)
          # racecheck does not follow the barriers of cuBLASLt's own kernels (nvjet) and of cuDNN's, and reports these.
          if compute-sanitizer --tool $tool --error-exitcode 9 "$build"/tests/test_cuda_$program "$test,$test - float,$test - bf16,$test - f16" > "$log" 2>&1 ||
             { [ $tool = racecheck ] && grep -q "All tests passed" "$log" && ! grep "Error: Race" "$log" | grep -qvE 'nvjet|cudnn'; }; then echo "$tool, $test: clean"
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
