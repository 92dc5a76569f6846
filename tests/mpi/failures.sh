#!/usr/bin/env bash
# One rank of a job dies, stops, exits, throws or hangs, in every phase of a step and of a save: the others end within 2 s of the time
# in which it is noticed, nobody is left, nothing that was saved is lost, and the job that goes on ends with the bits of one that did
# not fail. Usage: failures.sh LAUNCHER PROGRAM
set -u
here=$(cd "$(dirname "$0")" && pwd)
launcher=$1
program=$2
ranks=4
export WEFT_SILENCE=1 WEFT_DEADLINE=1 OMP_NUM_THREADS=1
work=$(mktemp -d "${TMPDIR:-/dev/shm}/weft-failures-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
failed=0
scenarios=0
fired=0
run() { bash "$here/run.sh" "$launcher" "$ranks" "$program" "$@"; }
wrong() { echo "FAILED: $scenario: $1"; tail -n 15 "$work/log"; failed=$((failed + 1)); }

mkdir "$work/whole"
run "$work/whole" 2 none none 0 > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }

fails() {  # fails ZERO ACTION PHASE RANK
  scenario="ZeRO $1, $2 in $3 of rank $4"
  scenarios=$((scenarios + 1))
  local dir=$work/run begin now saved rc
  rm -rf "$dir"
  mkdir "$dir"
  run "$dir" "$@" > "$work/log" 2>&1
  rc=$?
  now=$(date +%s%3N)
  begin=$(sed -n 's/^failing at //p' "$work/log" | head -n 1)
  if [ -z "$begin" ]; then  # a time after the end, or a call that this rank does not make
    [ $rc -eq 0 ] || wrong "exit code $rc, though nothing failed"
  else
    fired=$((fired + 1))
    [ $rc -ne 0 ] || wrong "exit code 0"
    [ $((now - begin)) -le 3000 ] || wrong "ended after $((now - begin)) ms"
    case $2 in
      stop | hang) [ $rc -eq 75 ] || wrong "exit code $rc, not 75" ;;
    esac
  fi
  ! pgrep -f "^$program $dir" > /dev/null || wrong "processes are left"
  saved=$(sed -n 's/^saved //p' "$work/log" | tail -n 1)
  [ -z "$saved" ] || [ -d "$dir/step-$(printf %08d "$saved")" ] || wrong "step $saved is lost"
  run "$dir" "$1" none none 0 > "$work/log" 2>&1 || wrong "it does not go on"
  cmp -s "$dir/model.safetensors" "$work/whole/model.safetensors" || wrong "other bits"
}

zero=0
for action in kill stop exit throw hang; do
  for phase in forward backward step saved save:1 save:2 save:3; do
    fails $((zero++ % 4)) $action $phase $((zero % ranks))
  done
done
for action in kill throw; do  # rank 0 makes more calls: it begins the folder, and commits
  for call in 4 5 6 7 8 9 10 11 12; do fails $((zero++ % 4)) $action save:$call 0; done
done
for ms in 1 3 6 10 15 20 25 30 40 50 60 80; do fails $((zero++ % 4)) kill time:$((ms * 1000)) $((zero % ranks)); done
echo "$scenarios scenarios, in $fired of which a rank failed before the job was done; $failed wrong"
[ $failed -eq 0 ] && [ $fired -ge 60 ]
