#!/usr/bin/env bash
# Compares the working tree's program with that of another commit: the bytes of what both write, and their speed.
#
#     benches/compare_commits.sh REV                    everything; fails if a byte differs or if speed is lost
#     benches/compare_commits.sh REV BINARY             BINARY in place of a build of the working tree
#     benches/compare_commits.sh REV --only bytes       or --only speed
#     benches/compare_commits.sh REV --repeats 7        pairs of runs for each measurement of speed
#     benches/compare_commits.sh REV --noise            also measures REV against REV as built in another folder
#     benches/compare_commits.sh REV --expert DIR --amateur DIR     the pair whose speed is measured
#
# The other options are those of benches/compare_commits.py, which compares. Measuring speed takes the Python packages numpy and
# tokenizers; PYTHON names the interpreter. Leave the machine alone meanwhile.
#
# Both programs are built in the same folder, one after the other, because the layout of a program's code depends on the folder:
# equal sources then give equal programs. What is built is kept under target/compare/, so a second call is quick.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -eq 0 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
rev=$(git rev-parse --verify --quiet "$1^{commit}") || { echo "$0: there is no commit $1" >&2; exit 2; }
shift
binary=
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then
    binary=$1
    shift
fi
noise=
options=()
for option in "$@"; do
    if [ "$option" = --noise ]; then noise=1; else options+=("$option"); fi
done

compare=$PWD/target/compare
scratch=$(mktemp -d)
worktree=
finish() {
    rm -rf "$scratch"
    if [ -n "$worktree" ]; then git worktree remove --force "$worktree"; fi
}
trap finish EXIT

# build NAME TREE FOLDER: builds the files of a git tree in target/compare/FOLDER and keeps target/compare/NAME/codit.
build() {
    local kept=$compare/$1 tree=$2
    if [ -x "$kept/codit" ] && [ "$(cat "$kept/tree")" = "$tree" ]; then return; fi
    echo "building $1" >&2
    mkdir -p "$kept"
    worktree=$compare/$3
    git worktree add --quiet --force --detach --no-checkout "$worktree" "$rev"
    git -C "$worktree" read-tree --reset -u "$tree"
    (cd "$worktree" && cargo build --quiet --release --bin codit --target-dir "$compare/build")
    cp "$compare/build/release/codit" "$kept/codit"
    echo "$tree" > "$kept/tree"
    git worktree remove --force "$worktree"
    worktree=
}

rev_tree=$(git rev-parse "$rev^{tree}")
build "$rev" "$rev_tree" source
if [ -z "$binary" ]; then
    # The working tree as it is: what is changed and what is new, but not what git ignores.
    export GIT_INDEX_FILE=$scratch/index
    git add --all
    tree=$(git write-tree)
    unset GIT_INDEX_FILE
    build working-tree "$tree" source
    binary=$compare/working-tree/codit
fi
if [ -n "$noise" ]; then
    build "$rev-again" "$rev_tree" source-again
    options+=(--again "$compare/$rev-again/codit")
fi
"${PYTHON:-python3}" benches/compare_commits.py "$compare/$rev/codit" "$binary" "${options[@]}"
