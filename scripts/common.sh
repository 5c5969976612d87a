# Shared by scripts/setup, tern and test (sourced, not run): where things are, and how a preset is configured and built.
# Everything it prints goes to stderr. Sets: root, cache, torch_dir. Environment: TERN_CACHE (where libtorch is kept),
# TERN_TORCH_DIR (an own libtorch, then none is fetched), TERN_JOBS (compilers at once).
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
cache=${TERN_CACHE:-${HOME:?HOME is not set: set TERN_CACHE to a folder for libtorch}/.cache/tern}
readonly torch_version=2.15.0
readonly arrow_version=26.0.1
arrow_home=$cache/arrow-$arrow_version
torch_home=$cache/libtorch-$torch_version
torch_dir=${TERN_TORCH_DIR:-$torch_home/torch}

say() { echo "tern: $*" >&2; }
die() { local code=$1; shift; say "$*"; exit "$code"; }

# Compilers at once: one a processor, but each with 2 GiB of memory (a file with libtorch's headers takes 1.5).
compile_jobs() {
  local memory_gib
  memory_gib=$(awk '/^MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo 2>/dev/null || echo 4)
  local n=$((memory_gib / 2)) processors
  processors=$(nproc)
  if [ "$n" -gt "$processors" ]; then n=$processors; fi
  if [ "$n" -lt 1 ]; then n=1; fi
  echo "${TERN_JOBS:-$n}"
}

# configure PRESET: runs cmake when the build folder is new or was made for another libtorch.
configure() {
  local folder=$root/build/$1 known=
  known=$(sed -n 's/^TERN_TORCH_DIR:PATH=//p' "$folder/CMakeCache.txt" 2>/dev/null || true)
  if [ -e "$folder/build.ninja" ] && [ "$known" = "$torch_dir" ]; then return; fi
  say "configuring $1"
  (cd "$root" && cmake --preset "$1" "-DTERN_TORCH_DIR=$torch_dir") </dev/null >&2 ||
    die 5 "cmake could not configure the preset $1: see the message above; scripts/setup installs what it needs"
}

# Reads ninja's lines: nothing is shown until there is work; on a terminal its steps share one line.
show_build() {
  local preset=$1 line said= live=
  while IFS= read -r line; do
    case $line in
      *'Entering directory'* | *'Re-checking globbed'* | *'no work to do'*) continue ;;
    esac
    if [ -z "$said" ]; then say "building $preset ($(compile_jobs) at once)"; fi
    said=1
    if [ -t 2 ] && [[ $line == \[*/*\]* ]]; then
      printf '\r%.100s\033[K' "$line" >&2
      live=1
    else
      printf '%s%s\n' "${live:+$'\n'}" "$line" >&2
      live=
    fi
  done
  if [ -n "$live" ]; then echo >&2; fi
}

# build PRESET [TARGET...]: says nothing when there is nothing to do; one build a folder at a time.
build() {
  local preset=$1 folder=$root/build/$1
  shift
  configure "$preset"
  (
    flock 9
    ninja -C "$folder" -j "$(compile_jobs)" "$@" </dev/null 2>&1 9>&- | show_build "$preset"
  ) 9>"$folder/.lock"
}
