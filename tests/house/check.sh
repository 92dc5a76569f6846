#!/usr/bin/env bash
# The rules of include/weft that a compiler does not check: umbrellas are complete, a floor includes only floors above it, and each
# outside library stays where it belongs. Names every file that breaks one.
set -uo pipefail
cd "${1:-"$(dirname "$0")/../.."}/include/weft"

floors=(core comm kernels tape ops nn optim dist io train)  # from the top down
bodies="io/manifest_json.hpp io/safetensors_header.hpp"     # included by the header whose body they are, where it is not compiled once
status=0
wrong() { echo "include/weft/$*"; status=1; }

floor_number() {
  for i in "${!floors[@]}"; do [ "${floors[$i]}" != "$1" ] || { echo "$i"; return; }; done
  echo -1
}

# Umbrellas. The kernels have none: users call ops.
for floor in "${floors[@]}"; do
  [ -d "$floor" ] && [ "$floor" != kernels ] || continue
  [ -f "$floor.hpp" ] || { wrong "$floor.hpp is missing, the umbrella of include/weft/$floor"; continue; }
  grep -q "^#include \"weft/$floor.hpp\"" weft.hpp || wrong "weft.hpp does not include weft/$floor.hpp"
  for header in "$floor"/*.hpp; do
    case " $bodies " in *" $header "*) continue ;; esac
    grep -q "^#include \"weft/$header\"" "$floor.hpp" || wrong "$floor.hpp does not include weft/$header"
  done
  grep '^#include "weft/.*/' "$floor.hpp" | LC_ALL=C sort -c 2> /dev/null || wrong "$floor.hpp is not sorted"
done

# Floors. comm and kernels lie side by side and know core alone; everybody else knows all floors above him.
while IFS=: read -r file line; do
  from=${file%%/*}
  to=$(sed 's|.*"weft/\([a-z_]*\)/.*|\1|' <<< "$line")
  from_number=$(floor_number "$from"); to_number=$(floor_number "$to")
  [ "$from" != "$to" ] || continue
  [ "$to_number" -ge 0 ] && [ "$to_number" -lt "$from_number" ] || wrong "$file includes a floor below it: $line"
  [ "$from" != kernels ] && [ "$from" != comm ] || [ "$to" = core ] || wrong "$file knows more than core: $line"
done < <(grep -rE '^ *# *include "weft/' */ --include=*.hpp)
grep -rnE '^ *# *include "' . --include=*.hpp | grep -v '"weft/' | while read -r line; do echo "include/weft/$line: expected a path from the project's root"; done | grep . && status=1

# What may stand only in some places: an expression, and the files in which it may.
only() {
  local found
  found=$(grep -rnE "$1" . --include=*.hpp | sed 's|^\./||' | grep -vE "$2") || return 0
  while read -r line; do wrong "$line: $3"; done <<< "$found"
}
only '#pragma +omp +parallel' '^core/parallel\.hpp:' 'only core/parallel.hpp opens OpenMP regions'
only 'include *[<"]dnnl' '^kernels/cpu/' 'only kernels/cpu includes oneDNN'
only 'include *[<"]dnnl.*\.hpp' '^$' 'oneDNN comes through its C header'
only 'include *[<"]Eigen' '^kernels/cpu/' 'only kernels/cpu includes Eigen'
only 'include *[<"]nlohmann' '^io/' 'only io includes a JSON library'
only 'include *[<"]CLI' '^$' 'command lines belong to the examples'
only 'include *<(iostream|regex|functional|ranges)>' '^$' 'a costly standard header'
only '#include *<bits/' '^$' "a compiler's own header"
for header in $(find . -name '*.hpp' | sed 's|^\./||'); do
  grep -q '^#pragma once' "$header" || wrong "$header has no #pragma once"
done

[ $status -ne 0 ] || echo "The house is in order."
exit $status
