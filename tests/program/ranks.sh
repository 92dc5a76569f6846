#!/usr/bin/env bash
# The training program on many ranks: the bytes of one rank, a stop, another number of ranks and another stage after it, one progress
# line. Usage: ranks.sh LAUNCHER PROGRAM FOLDER
set -u
launcher=$1
program=$2
work=$3
here=$(cd "$(dirname "$0")/../.." && pwd)
rm -rf "$work" && mkdir -p "$work" && cd "$work" || exit 1
export OMP_WAIT_POLICY=passive
failed=0
passed=0
check() {  # check TEXT CONDITION...
  local text=$1
  shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAILED: $text" && tail -n 5 log; fi
}
on() {  # on RANKS CODE ARGUMENTS...: runs the program and checks the exit code
  local ranks=$1 code=$2
  shift 2
  bash "$here/tests/mpi/run.sh" "$launcher" "$ranks" "$program" "$@" >log 2>&1
  local got=$?
  check "exit code $code, got $got: $ranks ranks, $*" test $got -eq "$code"
}
small=(--text "$here/README.md" --width 32 --layers 2 --heads 2 --context 32 --batch 8 --micro-batch 1 --exact --sample 40 --eval-every 10 --save-every 10 --dropout 0.1)

on 1 0 "${small[@]}" --steps 20 --out one
for zero in 0 1 2 3; do
  on 2 0 "${small[@]}" --steps 20 --zero $zero --out two-$zero
  check "ZeRO $zero on 2 ranks: the bytes of one" cmp -s one/model.safetensors two-$zero/model.safetensors
  check "the losses of one" cmp -s <(sed 's/,"tokens_per_s.*//' one/metrics.jsonl) <(sed 's/,"tokens_per_s.*//' two-$zero/metrics.jsonl)
done
check "one rank speaks" test "$(grep -c '^step 20/20' log)" -eq 1 -a "$(grep -c 'model: ' log)" -eq 1
on 4 0 "${small[@]}" --arch mixtral --steps 20 --zero 3 --dtype bf16 --recompute --out four
on 1 0 "${small[@]}" --arch mixtral --steps 20 --dtype bf16 --recompute --out four-one
check "a mixture in bf16 on 4 ranks: the bytes of one" cmp -s four-one/model.safetensors four/model.safetensors

# Another number of ranks half way, and another stage.
on 4 0 "${small[@]}" --steps 10 --zero 3 --out part
cp -r part other
on 2 0 --resume --steps 20 --zero 1 --out part
on 1 0 --resume --steps 20 --out other
check "4 ranks, then 2 or 1: the same bytes" cmp -s part/model.safetensors other/model.safetensors

# Told to stop, all save at the same step.
bash "$here/tests/mpi/run.sh" "$launcher" 2 "$program" "${small[@]}" --steps 100000 --save-every 0 --zero 2 --out stopped >log 2>&1 &
launched=$!
while kill -0 $launched && [ ! -s stopped/metrics.jsonl ]; do sleep 0.05; done 2>/dev/null
pkill -TERM -o -f "^$program .*--out stopped"  # one rank alone
wait $launched
check "SIGTERM ends with 143" test $? -eq 143
check "a checkpoint of 2 ranks after SIGTERM" compgen -G "stopped/step-*/rank-00001-of-00002.safetensors" >/dev/null
on 1 0 --resume --out stopped --steps $(($(wc -l <stopped/metrics.jsonl) + 2))

# Options that ranks cannot have.
on 3 2 "${small[@]}" --steps 5 --out none
check "ranks that do not fit are named" grep -q "3 ranks" log
on 2 2 "${small[@]}" --steps 5 --micro-batch 0 --out none
echo "$passed passed, $failed failed"
test $failed -eq 0
