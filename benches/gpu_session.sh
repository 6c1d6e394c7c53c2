#!/usr/bin/env bash
# The day a GPU is at hand: checks codit on it and measures it, in 20 minutes, from a built program alone.
#
#     benches/gpu_session.sh [OPTION ...] PROGRAM FOLDER [STEP ...]
#
# PROGRAM is codit, stripped or not. FOLDER, which no earlier session has written to, gets summary.md, which is kept up to date, and the log of each step and the JSON of
# each bench in steps/. The steps run in the order of their worth, each within a time of its own; one that fails stops no other.
# Named steps run alone.
#
#     --list               prints the steps and the seconds that each is expected to take, which is a guess
#     --budget SECONDS     the time for all steps: those that no longer fit are named as left out          [1200]
#     --limit SECONDS      the most time of a step                                                         [3 times the expected]
#     --packed             puts logs and JSON into FOLDER/steps.tar.gz, for a machine that gives few files back
#     --shapes A,B         the shapes of the benches                                                       [llama-3.1-8b,qwen3-8b]
#     --rows A,B           their rows                                                                      [32,151]
#     --contexts A,B       the tokens of their longest contexts; B is one bench's                           [1000,1100]
#     --output-len N       the tokens of their responses                                                   [64]
#     --prompts N          the prompts of the step `text`                                                  [32]
#     --families LIST      the families of the doctor's checks                                             [all]
#
# Exit codes: 0 if every step passed or was skipped for want of a tool, 1 if one failed, 2 if the arguments are wrong, 3 if none
# failed and some were left out, 130 or 143 if a signal ended the session.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
started=$SECONDS

# --- The arguments.

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '/^set/d' >&2
    exit 2
}

refuse() {
    echo "gpu_session: error: $1" >&2
    exit 2
}

budget=1200 limit= packed= list= families= prompts=32
shapes=llama-3.1-8b,qwen3-8b rows=32,151 contexts=1000,1100 output_len=64
while [[ ${1-} == --* ]]; do
    case $1 in
        --packed) packed=1 ;;
        --list) list=1 ;;
        --budget | --limit | --prompts | --families | --shapes | --rows | --contexts | --output-len)
            [[ $# -ge 2 ]] || usage
            name=${1#--}
            printf -v "${name//-/_}" %s "$2"
            shift
            ;;
        *) usage ;;
    esac
    shift
done
IFS=, read -r first_shape second_shape <<<"$shapes"
IFS=, read -r few many <<<"$rows"
IFS=, read -r context longer <<<"$contexts"
for number in "$budget" "${limit:-1}" "$few" "$many" "$context" "$longer" "$output_len" "$prompts"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || refuse "a number is missing or is not a positive integer; see the options"
done
[[ $first_shape && $second_shape ]] || refuse "--shapes is $shapes; give two, such as llama-3.1-8b,qwen3-8b"
((output_len < context && output_len < longer)) ||
    refuse "--output-len is $output_len, which leaves no prompt in a context of $context or $longer tokens; lower it"

# --- The steps, in the order of their worth.

names=() expected=() commands=()
declare -A command_of state note

# add NAME SECONDS COMMAND: a step, and a guess of the seconds that it takes on an H100.
add() {
    names+=("$1") expected+=("$2") commands+=("$3")
    command_of[$1]=$3
}

# bench NAME SECONDS SHAPE ROWS CONTEXT [FLAGS]: a bench whose longest context has that many tokens.
bench() {
    local load="--shape $3 --rows $4 --input-len $(($5 - output_len)) --output-len $output_len"
    add "$1" "$2" "codit bench --device cuda $load${6:+ $6} --json >$1.json"
}

fp8="--dtype fp8 --kv-cache-dtype fp8"
doctor="codit doctor --device cuda${families:+ --only $families}"
# Without the pair from end to end: a checker makes kernels 10 to 50 times slower.
operations=rows,matmul,attention,mixture,contrast_sample,gathered-candidates,decided-by-the-expert
a=${first_shape##*/} b=${second_shape##*/}

add machine 10 machine
add text 20 "compare_text $prompts"
add doctor-bfloat16 20 "$doctor --dtype bfloat16"
add doctor-float32 20 "$doctor --dtype float32"
bench "$a-$few" 35 "$first_shape" "$few" "$context"
bench "$a-$many" 60 "$first_shape" "$many" "$context"
add doctor-fp8 20 "$doctor $fp8"
bench "$a-$many-fp8" 60 "$first_shape" "$many" "$context" "$fp8"
add memcheck 90 "sanitize memcheck codit doctor --device cuda --dtype bfloat16 --only ${families:-$operations}"
add racecheck 90 "sanitize racecheck codit doctor --device cuda --dtype bfloat16 --only ${families:-$operations}"
bench "$b-$few" 35 "$second_shape" "$few" "$context"
bench "$b-$many" 60 "$second_shape" "$many" "$context"
bench "$a-$many-one-stream" 60 "$first_shape" "$many" "$context" "--streams 1"
bench "$a-$many-$longer" 60 "$first_shape" "$many" "$longer"
bench "$a-$many-deterministic" 60 "$first_shape" "$many" "$context" --deterministic
bench "$a-$few-fp8" 35 "$first_shape" "$few" "$context" "$fp8"
add ablation 100 "codit bench --ablation --device cuda --shape $first_shape --rows $few --input-len $((context / 8 + 1)) \
--output-len $output_len --json >ablation.json"
bench "$a-$few-one-stream" 35 "$first_shape" "$few" "$context" "--streams 1"
bench "$b-$many-fp8" 60 "$second_shape" "$many" "$context" "$fp8"
add doctor-float32-fp8-cache 20 "$doctor --dtype float32 --kv-cache-dtype fp8"
bench "$b-$few-fp8" 35 "$second_shape" "$few" "$context" "$fp8"
add nsys 75 "trace codit bench --device cuda --shape $first_shape --rows $few --input-len $((context / 8 + 1)) --output-len 32"

if [[ $list ]]; then
    for i in "${!names[@]}"; do printf '%-32s %4s\n' "${names[i]}" "${expected[i]}"; done
    exit
fi

[[ $# -ge 2 ]] || usage
program=$(realpath -- "$1") folder=$2
shift 2
chosen=("$@")
((${#chosen[@]})) || chosen=("${names[@]}")
for name in "${chosen[@]}"; do
    [[ -v command_of[$name] ]] || refuse "there is no step $name; --list prints them"
done
[[ -f $program && -x $program ]] || refuse "$program is not a program; give codit's path"

# --- What steps run, each in a shell of its own in the folder of the steps. Exit code 77 is for a tool that is not there.

# The machine, its driver, and whether the program starts and finds what it needs.
machine() {
    uname -srm
    nproc
    ldd "$(command -v codit)" | grep 'not found' && return 1
    library libcublasLt.so || echo "cuBLASLt was not found"
    codit --version
    [[ $(tool nvidia-smi) ]] || return 0
    nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,power.limit --format=csv
}

# compare_text PROMPTS: the built-in pair's responses in float32, on the CPU and on the GPU; those in other formats only have
# to come.
compare_text() {
    local prompts=$1 word number
    for ((number = 0; number < prompts; number++)); do
        word=(river stone green seven garden letter winter)
        echo "{\"id\": \"q$number\", \"instruction\": \"Write the word ${word[number % 7]} in capital letters.\"}"
    done >prompts.jsonl
    local sizes="--seed 1 --max-tokens 24 --max-num-seqs 4 --max-num-batched-tokens 16 --kv-cache-memory 8MiB"
    rm -f text-*.jsonl*
    codit synth prompts.jsonl -o text-cpu.jsonl --device cpu --dtype float32 $sizes || return 1
    local format equal result=0
    for format in bfloat16 "fp8 --kv-cache-dtype fp8" float32; do
        codit synth prompts.jsonl -o "text-${format%% *}.jsonl" --device cuda --dtype $format $sizes || return 1
        equal=$(comm -12 <(texts text-cpu.jsonl) <(texts "text-${format%% *}.jsonl") | wc -l)
        echo "${format%% *}: $equal of $prompts records are those of the CPU in float32, apart from the scores' last digits"
        # Rounding may decide between two tokens now and then.
        result=$((10 * equal < 9 * prompts))
    done
    return $result
}

# texts FILE: the records in order, without scores.
texts() { sed 's/"score":\[[^]]*\],//' "$1" | sort; }

# sanitize TOOL COMMAND...: under NVIDIA's checker of memory accesses or of races.
sanitize() {
    local tool=$1 found
    shift
    found=$(tool compute-sanitizer) || return 77
    "$found" --tool "$tool" --report-api-errors no --error-exitcode 86 "$@"
}

# trace COMMAND...: the time of each kernel in what a command runs, graphs included.
trace() {
    local found
    found=$(tool nsys) || return 77
    "$found" profile --trace=cuda,nvtx --cuda-graph-trace=node --force-overwrite=true -o nsys "$@" || return 1
    "$found" stats --report cuda_gpu_kern_sum --format table nsys.nsys-rep
    local result=$?
    # Too large to give back.
    find . -name 'nsys.*' -size +8M -delete
    return $result
}

# tool NAME: the path of a tool of CUDA's, on the PATH or where its toolkit lies.
tool() {
    command -v "$1" && return
    local path
    for path in /usr/local/cuda*/bin/"$1" /usr/local/cuda*/compute-sanitizer/"$1" /opt/nvidia/*/*/bin/"$1"; do
        [[ -x $path ]] && echo "$path" && return
    done
    echo "$1 is not on this machine" >&2
    return 1
}

# library NAME: the path of a library whose name begins so, where the loader or a package of Python's has it.
library() {
    local path paths=${LD_LIBRARY_PATH-}
    for path in ${paths//:/ } /usr/local/nvidia/lib64 /usr/local/cuda*/lib64 /usr/local/cuda*/targets/x86_64-linux/lib; do
        compgen -G "$path/$1*" | head -n 1 | grep . && return
    done
    ldconfig -p 2>/dev/null | awk -v name="$1" 'index($1, name) == 1 { print $NF; found = 1; exit } END { exit !found }' && return
    timeout 20 find / \( -path /proc -o -path /sys \) -prune -o -path '*/nvidia/*' -name "$1*" -print -quit 2>/dev/null | grep .
}
export -f machine compare_text texts sanitize trace tool library

# --- The summary.

# value FILE FIELD: a field of a bench's JSON.
value() { awk -v key="\"$2\":" '$1 == key { $1 = ""; gsub(/^ "?|"?,?$/, ""); print; exit }' "$1"; }

# predicted STEP: the milliseconds of a decode step that benches/predictions.md gives.
predicted() {
    local table=$here/predictions.md
    [[ -f $table ]] && awk -F ' *[|] *' -v step="\`$1\`" '$2 == step { print $3; exit }' "$table"
}

# The figures of a bench's JSON as a row of the table of benches.
bench_row() {
    awk -v step="$1" -v predicted="$(predicted "$1")" '
        { gsub(/[",]/, "", $2); if ($1 ~ /^"[a-z_]+":$/ && !($1 in field)) field[$1] = $2 }
        END {
            printf "| %s | %s | %.4g | %.4g | %.0f%%%s | %.1f%% | %.0f | %.0f | %.0f | %.0f |\n", step, (predicted == "" ? "-" : predicted),
                field["\"decode_step_seconds\":"] * 1e3, field["\"decode_floor_seconds\":"] * 1e3,
                field["\"fraction_of_floor\":"] * 100, (field["\"is_doubtful\":"] == "true" ? "?" : ""),
                field["\"idle_share\":"] * 100, field["\"tokens_per_second\":"], field["\"prefill_tokens_per_second\":"],
                field["\"bandwidth\":"] / 1e9, field["\"matmul_rate\":"] / 1e12
        }' "$work/$1.json"
}

# The operations of a bench's decode step, as shares of the ceilings.
operation_rows() {
    awk '
        { gsub(/[",]/, "", $2) }
        $1 == "\"name\":" { name = $2 }
        $1 == "\"calls\":" { calls = $2 }
        $1 == "\"seconds\":" { seconds = $2 }
        $1 == "\"bandwidth_fraction\":" { bandwidth = $2 }
        $1 == "\"matmul_fraction\":" {
            printf "| %s | %d | %.0f | %.0f%%%s | %.0f%%%s |\n", name, calls, seconds * 1e6, bandwidth * 100,
                (bandwidth > 1 ? "?" : ""), $2 * 100, ($2 > 1 ? "?" : "")
        }' "$work/$1.json"
}

ablation_rows() {
    awk '
        $1 == "\"shortcuts\":" { shortcuts = ""; inside = $2 == "["; next }
        inside && /\]/ { inside = 0; next }
        inside { gsub(/[ ",]/, ""); shortcuts = shortcuts (shortcuts == "" ? "" : ", ") $0; next }
        { gsub(/[",]/, "", $2) }
        $1 == "\"tokens_per_second\":" { rate = $2 }
        $1 == "\"speed_up\":" { gain = $2 }
        $1 == "\"predicted_speed_up\":" { predicted = $2 }
        $1 == "\"same_responses\":" {
            printf "| %s | %.0f | %.2f | %.2f | %.0f%% |\n", (shortcuts == "" ? "none" : shortcuts), rate, gain, predicted, $2 * 100
        }' "$work/ablation.json"
}

# The steps that have a report.
reported() {
    local name
    for name in "${chosen[@]}"; do
        if [[ ${command_of[$name]} == *'--json >'* && $name != ablation && -s $work/$name.json ]]; then echo "$name"; fi
    done
}

summary() {
    local name seconds device
    device=$(sed -n 's/^codit: device \+\(GPU .*\)/\1/p' "$work/text.log" 2>/dev/null | tail -n 1)
    for name in $(reported); do device=$(value "$work/$name.json" device); done
    device=${device%%;*}
    echo "# ${device:-a GPU}, $(date -u +%F)"
    echo
    echo "Program: $version. By \`benches/gpu_session.sh\`, in $((SECONDS - started)) s."
    if [[ -s $work/machine.log ]]; then
        printf '\n```text\n%s\n```\n' "$(cat "$work/machine.log")"
    fi
    echo
    echo "| step | result | s | it says |"
    echo "| --- | --- | --- | --- |"
    for name in "${chosen[@]}"; do
        echo "| $name | ${state[$name]:-left out} | ${took[$name]:-} | ${note[$name]:-} |"
    done
    if [[ $(reported) ]]; then
        echo
        echo "## Decode steps"
        echo
        echo "The floor is the least time that the ceilings allow for what a step reads and multiplies; the ceilings were measured in"
        echo "the same run: a copy, and the largest product of cuBLASLt. Over 100% of them (\`?\`) is an error of measurement. What is"
        echo "predicted is explained in benches/predictions.md."
        echo
        echo "| bench | predicted ms | step ms | floor ms | floor/step | idle | tok/s | prefill tok/s | GB/s | TFLOP/s |"
        echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        for name in $(reported); do bench_row "$name"; done
        for name in $(reported); do
            printf '\n### %s\n\n' "$name"
            echo "$(value "$work/$name.json" load); $(value "$work/$name.json" mode)"
            echo
            echo "| operation | calls | us | of bandwidth | of matmul |"
            echo "| --- | --- | --- | --- | --- |"
            operation_rows "$name"
        done
    fi
    if [[ -s $work/ablation.json ]]; then
        printf '\n## Shortcuts\n\n%s\n\n' "$(value "$work/ablation.json" load)"
        echo "| shortcuts | tok/s | speed-up | predicted | same responses |"
        echo "| --- | --- | --- | --- | --- |"
        ablation_rows
    fi
    printf '\n## Commands\n\nThose that are no command of a shell are functions of the script.\n\n'
    for name in "${chosen[@]}"; do echo "- $name: \`${command_of[$name]}\`"; done
}

# Writes what is known so far, so that it is there whatever ends this script.
publish() {
    summary >"$scratch/summary.md" && mv "$scratch/summary.md" "$folder/summary.md"
    if [[ $packed ]]; then
        tar -czf "$scratch/steps.tar.gz" -C "$work" . && mv "$scratch/steps.tar.gz" "$folder/steps.tar.gz"
    fi
}

# --- The run.

mkdir -p -- "$folder" || refuse "$folder cannot be made; give another folder"
folder=$(realpath -- "$folder")
[[ ! -e $folder/summary.md ]] || refuse "$folder holds an earlier session; give another folder"
: 2>/dev/null >"$folder/summary.md" || refuse "$folder cannot be written to; give another folder"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
work=$folder/steps
[[ $packed ]] && work=$scratch/steps
mkdir -p "$work" "$scratch/bin"
# Steps call it by its name.
ln -s "$program" "$scratch/bin/codit"
export PATH=$scratch/bin:$PATH
for name in libcuda.so libcublasLt.so; do
    if ! ldconfig -p 2>/dev/null | grep -q "$name" && found=$(library "$name"); then
        export LD_LIBRARY_PATH=$(dirname "$found")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    fi
done
version=$(timeout -k 5 20 codit --version 2>&1 | head -n 1)
declare -A took
failed= left_out=

# said STATUS LOG: the line of a log that says most: the first error of a step that failed, else the last line.
said() {
    local line=
    (($1)) && line=$(grep -m 1 -E '^codit: error|^FAILED' "$2")
    [[ $line ]] || line=$(grep -v '^ *$' "$2" | tail -n 1)
    tr '|' '/' <<<"$line" | cut -c 1-240
}

# stop EXIT_CODE: ends the step that runs, and the session.
stop() {
    [[ $running ]] && kill "$running" 2>/dev/null
    for name in "${chosen[@]}"; do [[ ${state[$name]-} != running ]] || state[$name]="**interrupted**"; done
    publish
    exit "$1"
}
running=
trap 'stop 130' INT
trap 'stop 143' TERM

# run NAME SECONDS: one step, if it fits into the time that is left.
run() {
    local name=$1 seconds=$2 left=$((budget - (SECONDS - started))) most status begin=$SECONDS
    if ((left < (limit && limit < seconds ? limit : seconds))); then
        left_out=1 state[$name]="left out" note[$name]="$left s were left, and it takes about $seconds"
        echo "gpu_session: $name: left out" >&2
        return
    fi
    most=$((limit ? limit : 3 * seconds))
    ((most > left)) && most=$left
    state[$name]=running
    publish
    (cd "$work" && exec timeout -k 5 "$most" bash -c "${command_of[$name]}") >"$work/$name.log" 2>&1 </dev/null &
    running=$!
    wait "$running"
    status=$?
    running=
    took[$name]=$((SECONDS - begin))
    note[$name]=$(said "$status" "$work/$name.log")
    case $status in
        0) state[$name]=passed ;;
        77) state[$name]=skipped ;;
        124 | 137) state[$name]="**timed out**" note[$name]="after $most s; ${note[$name]}" failed=1 ;;
        *) state[$name]="**failed**, exit code $status" failed=1 ;;
    esac
    [[ $status == 0 || ! -f $work/$name.json ]] || rm "$work/$name.json"
    echo "gpu_session: $name: ${state[$name]} (${took[$name]} s)" >&2
}

for i in "${!names[@]}"; do
    [[ " ${chosen[*]} " == *" ${names[i]} "* ]] && run "${names[i]}" "${expected[i]}"
done
publish
sed -n '/^| step /,/^$/p' "$folder/summary.md"
[[ $failed ]] && exit 1
[[ $left_out ]] && exit 3
exit 0
