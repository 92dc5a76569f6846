#!/usr/bin/env bash
# What a user pays at compile time: seconds of one file at -O2, the best of three, and multiples of <Eigen/Core> alone in the same
# run, against weft's budgets. hello-tensor includes weft/ops.hpp, multiplies two tensors and runs backward; the trainer includes
# weft/weft.hpp and trains a GPT. Each with headers only, and as a program compiles that links weft::compiled.
# CXX names the compiler. Installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
cxx=${CXX:-g++}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

echo 'int main() {}' > "$folder/empty.cpp"
printf '#include <Eigen/Core>\nint main() {}\n' > "$folder/eigen.cpp"
cat > "$folder/hello.cpp" <<'CODE'
#include <cstdio>
#include <weft/ops.hpp>

int main() {
  auto x = weft::from_vector<float>({1, 2, 3, 4}, {2, 2});
  const auto y = weft::from_vector<float>({5, 6, 7, 8}, {2, 2});
  x.require_grad();
  weft::Tape tape;
  tape.backward(sum(x * y));
  std::printf("%s\n", to_string(gradient(x)).c_str());
}
CODE
cat > "$folder/trainer.cpp" <<'CODE'
#include <cstdio>
#include <weft/weft.hpp>
using namespace weft;

int main() {
  const nn::Transformer<float> model({.vocab = 256, .width = 64, .layers = 2, .heads = 2, .context = 32}, 1337);
  optim::AdamW adamw(model, {.beta2 = 0.99});
  const auto lr = optim::warmup_cosine({.peak = 1e-3, .floor = 1e-4, .warmup = 10, .steps = 100});
  const Tensor<std::int64_t> tokens({8, 32}), targets({8, 32});
  for (Index step = 0; step < 100; ++step) {
    for (Index i = 0; i < 256; ++i) {
      tokens.data()[i] = (i + step) % 7;
      targets.data()[i] = (i + 1 + step) % 7;
    }
    Tape tape(Key{1337, step});
    const auto loss = model.loss(tokens, targets);
    tape.backward(loss);
    adamw.step({.lr = lr(step), .clip = 1});
    if (step % 10 == 0) std::printf("%ld %g\n", static_cast<long>(step), loss.value());
  }
  io::save(model, "model.safetensors");
}
CODE

flags=(-std=c++20 -O2 -fopenmp -ffp-contract=off -I include)
for eigen in /usr/include/eigen3 /usr/local/include/eigen3; do [ -d "$eigen" ] && flags+=(-isystem "$eigen"); done

seconds() {  # processor seconds, which other programs disturb less than the clock
  local best="" time
  for _ in 1 2 3; do
    time=$( { TIMEFORMAT='%U'; time "$cxx" "${flags[@]}" "${@:2}" -c "$folder/$1.cpp" -o "$folder/$1.o" > /dev/null 2> "$folder/errors"; } 2>&1 ) \
      || { cat "$folder/errors" >&2; return 1; }
    best=$(awk -v a="$time" -v b="${best:-$time}" 'BEGIN { print (a < b) ? a : b }')
  done
  echo "$best"
}

"$cxx" --version | head -1
printf '%-28s %8s s\n' "empty file" "$(seconds empty)"
if core=$(seconds eigen 2> /dev/null); then
  printf '%-28s %8s s\n' "<Eigen/Core> alone" "$core"
else
  core=""
  echo "<Eigen/Core> is not installed (libeigen3-dev): seconds only"
fi

over=0
row() {  # name, budget, file, options
  local time
  time=$(seconds "${@:3}")
  printf '%-28s %8s s' "$1" "$time"
  if [ -n "$core" ]; then
    awk -v t="$time" -v c="$core" -v b="$2" 'BEGIN { printf "  %5.2f x Eigen/Core, budget %.1f%s", t / c, b, (t > b * c) ? "  OVER" : "" }'
    awk -v t="$time" -v c="$core" -v b="$2" 'BEGIN { exit (t > b * c) }' || over=1
  fi
  echo
}
row "hello-tensor, headers only" 1.7 hello
row "hello-tensor, compiled" 0.6 hello -DWEFT_COMPILED
row "GPT trainer, headers only" 8 trainer
row "GPT trainer, compiled" 2.5 trainer -DWEFT_COMPILED
exit $over
