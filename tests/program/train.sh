#!/usr/bin/env bash
# The training program as its users run it: exit codes, resume after a kill bit for bit, threads, files. Usage: train.sh PROGRAM FOLDER
set -u
program=$1
work=$2
here=$(cd "$(dirname "$0")/../.." && pwd)
rm -rf "$work" && mkdir -p "$work" && cd "$work" || exit 1
failed=0
passed=0
check() {  # check TEXT CONDITION...
  local text=$1
  shift
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAILED: $text"; fi
}
exits() {  # exits CODE TEXT ARGUMENTS...: the exit code, and a text in what it prints
  local code=$1 text=$2
  shift 2
  "$program" "$@" >log 2>&1
  local got=$?
  check "exit code $code, got $got: $* ($(tail -n 1 log))" test $got -eq "$code"
  check "'$text' in the output of: $*" grep -qF -- "$text" log
}
small=(--text "$here/README.md" --width 32 --layers 2 --heads 2 --context 32 --batch 8 --sample 40 --eval-every 10 --save-every 10 --dropout 0.1)

# Options.
exits 0 "--micro-batch" --help
exits 0 "weft" --version
exits 2 "--nonsense" --nonsense
exits 2 "--text" --steps 1
exits 2 "--steps" "${small[@]}" --steps -1
exits 2 "--dropout" "${small[@]}" --dropout 1
exits 2 "--lr" "${small[@]}" --lr -1
exits 2 "--arch" "${small[@]}" --arch bert
exits 2 "--preset" "${small[@]}" --preset huge
exits 2 "--micro-batch" "${small[@]}" --micro-batch 3
exits 2 "multiple of the number of heads" "${small[@]}" --width 33
exits 1 "No such file" --text missing.txt --out none
echo -n "" >empty.txt
exits 1 "empty" --text empty.txt --out none

# Every architecture trains, and leaves what it promises.
for arch in gpt2 llama mixtral; do
  exits 0 "validation loss" "${small[@]}" --arch $arch --steps 20 --out $arch --threads 1
  check "$arch: model, report, metrics and a checkpoint" test -s $arch/model.safetensors -a -s $arch/report.html -a -s $arch/step-00000020/manifest.json
  check "$arch: one line of metrics a step" test "$(wc -l <$arch/metrics.jsonl)" -eq 20
  exits 0 "validation loss" "${small[@]}" --arch $arch --steps 20 --out $arch-3 --threads 3
  check "$arch: the same bytes for 1 and 3 threads" cmp -s $arch/model.safetensors $arch-3/model.safetensors
done
exits 0 "validation loss" "${small[@]}" --steps 20 --out recompute --recompute
check "the same bytes with recompute" cmp -s gpt2/model.safetensors recompute/model.safetensors
exits 0 "validation loss" "${small[@]}" --steps 20 --out bf16 --dtype bf16 --micro-batch 4 --tokenizer byte

# Resume: bit for bit after a stop at any step, a kill, and in a moved folder; refused where options conflict.
exits 0 "nothing to resume" "${small[@]}" --steps 12 --out part --resume
exits 0 "resumed" --resume --out part --steps 20
check "12 steps and 8 more are other than 20 (the learning rate follows --steps)" test -s part/model.safetensors
exits 0 "validation loss" "${small[@]}" --arch llama --steps 60 --out whole
for delay in 0.2 0.5 0.9 1.3; do
  rm -rf killed
  "$program" "${small[@]}" --arch llama --steps 60 --out killed --threads 1 >log 2>&1 &
  pid=$!
  sleep $delay
  kill -9 $pid 2>/dev/null
  wait $pid 2>/dev/null
  exits 0 "validation loss" "${small[@]}" --arch llama --steps 60 --out killed --resume
  check "the same bytes after a kill at $delay s" cmp -s whole/model.safetensors killed/model.safetensors
done
rm -rf stopped
"$program" "${small[@]}" --arch llama --steps 100000 --save-every 0 --out stopped >log 2>&1 &
pid=$!
while kill -0 $pid && [ ! -s stopped/metrics.jsonl ]; do sleep 0.05; done 2>/dev/null
kill -TERM $pid
wait $pid
check "SIGTERM saves and ends with 143" test $? -eq 143
check "a checkpoint after SIGTERM" compgen -G "stopped/step-*/manifest.json" >/dev/null
mv stopped moved
steps=$(($(wc -l <moved/metrics.jsonl) + 3))
exits 0 "resumed moved" --resume --out moved --steps $steps
exits 2 "--width" --resume --out moved --width 64
exits 2 "--lr" --resume --out moved --lr 0.5
for f in whole/step-*/rank-*; do printf 'x' | dd of="$f" bs=1 seek=900 conv=notrunc 2>/dev/null; done
exits 0 "nothing to resume" "${small[@]}" --arch llama --steps 5 --out whole --resume
check "the damaged run was moved aside, not lost" test -d whole.1

# A loss that is not finite: exit code 4, the step and the op named, the last checkpoint as it was.
exits 4 "expected a finite" "${small[@]}" --steps 200 --lr 1e30 --out infinite
check "the step is named" grep -q "^step " log

echo "$passed passed, $failed failed"
test $failed -eq 0
