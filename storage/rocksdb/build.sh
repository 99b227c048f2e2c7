#!/usr/bin/env bash
# Builds RocksDB once per machine, from the sources that Cargo.lock names, and tells cargo about it.
#
# The crate's own build compiles 343 files one by one: 45 minutes of CPU, nearly all of it spent reading
# the same headers again. Twelve files that include the others in order take 7. The result is kept in the
# user's cache under a name that holds everything it depends on, so it is never stale.
#
# It writes .cargo/rocksdb.toml, which .cargo/config.toml includes when it is there: cargo with and
# without make then sees the same settings, and shares what it has built. Progress goes to stderr; the last
# line of stdout is the folder.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}
units=12

say() { echo "rocksdb: $*" >&2; }
stop() { say "$*"; exit 1; }

# A shell that was open before rustup's installation does not have its folder in the path yet.
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
command -v cargo >/dev/null || stop "no cargo: install rustup's toolchain (https://rustup.rs)"
for cxx in ${CXX:-c++ g++ clang++} ''; do command -v "$cxx" >/dev/null && break; done
[ -n "$cxx" ] || stop "no C++ compiler: install one (apt-get install g++) or set CXX"

# --- libclang, with which the rocksdb crate reads RocksDB's C header -----------------------------------

# Prints the folder of a libclang that has its own headers (stddef.h and the like) beside it: the library
# alone loads, and then fails on the first #include. libclang-cpp is another library.
libclang() {
    local dir lib
    for dir in $(ls -d /usr/lib/llvm-*/lib 2>/dev/null | sort -Vr) /usr/local/lib /usr/lib64 /usr/lib; do
        ls "$dir"/clang/*/include/stddef.h >/dev/null 2>&1 || continue
        for lib in "$dir"/libclang.so "$dir"/libclang.so.* "$dir"/libclang-[0-9]*.so*; do
            [ -e "$lib" ] && echo "$dir" && return
        done
    done
    return 1
}

install_libclang() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300) version
    say "installing libclang (set LIBCLANG_PATH to use your own)"
    "${apt[@]}" update >&2
    # libclang-dev names the distribution's own version, whose LLVM is the likeliest to be here already;
    # these two packages are the part of it that is needed, a tenth of its size.
    version=$(apt-cache depends libclang-dev | sed -n 's/.*Depends: libclang-\([0-9]*\)-dev.*/\1/p' | head -1)
    "${apt[@]}" install -y --no-install-recommends "libclang1-$version" "libclang-common-$version-dev" >&2
}

if [ -n "${LIBCLANG_PATH:-}" ]; then
    [ -e "$LIBCLANG_PATH" ] || stop "LIBCLANG_PATH is set to $LIBCLANG_PATH, which does not exist"
    clang=$LIBCLANG_PATH
elif ! clang=$(libclang); then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then install_libclang || true; fi
    clang=$(libclang) || stop "no libclang: apt-get install libclang-dev, or set LIBCLANG_PATH to its folder"
fi

# --- What to build -------------------------------------------------------------------------------------

# `cargo metadata` downloads what is missing; the platform keeps it from fetching what only Windows needs.
# The empty wrapper is for .cargo/unprepared, which would stop it in a fresh clone.
host=$(cd "$root" && rustc -vV | sed -n 's/^host: //p')
metadata=$(cd "$root" && RUSTC_WRAPPER= cargo metadata --format-version 1 --filter-platform "$host")
source_of() {
    local manifest
    manifest=$(grep -o "\"manifest_path\":\"[^\"]*/$1\(-[0-9][^/\"]*\)\?/Cargo.toml\"" <<<"$metadata" | head -1 | cut -d'"' -f4)
    [ -n "$manifest" ] || stop "Cargo.lock has no $1"
    dirname "$manifest"
}
version_of() { sed -n 's/^version = "\(.*\)"/\1/p' "$1/Cargo.toml" | head -1; }
sources=$(source_of librocksdb-sys)
lz4=$(source_of lz4-sys)

flags=(-O2 -g0 -std=c++20 -fPIC -w -DNDEBUG -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX
    -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT
    -DROCKSDB_RANGESYNC_PRESENT -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION -DLZ4 -include cstdint)
# RocksDB chooses its checksum at compile time: without these every block and record is summed by the slow table.
case $host in x86_64-*) flags+=(-msse4.2 -mpclmul) ;; esac

key=$(printf '%s\n' "$host" "$(version_of "$sources")" "$(version_of "$lz4")" "$units" "${flags[*]}" \
    "$("$cxx" --version | head -1)" | sha256sum | cut -c1-16)
target=$cache/rocksdb-$(version_of "$sources" | tr + -)-$key

# --- Build ---------------------------------------------------------------------------------------------

build() {
    local started jobs
    # One that was killed leaves its folder behind; we hold the lock, so nobody is in it.
    rm -rf "$target".tmp.*
    work=$(mktemp -d "$target.tmp.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    started=$SECONDS

    # Cut the list, in its order, where the sums of the weights are equal. The constant stands for the
    # headers that even the smallest file brings in.
    grep -v '^util/build_version.cc$' "$sources/rocksdb_lib_sources.txt" | (cd "$sources/rocksdb" && xargs wc -c) |
        grep -v ' total$' | awk -v units="$units" -v work="$work" '
            { path[NR] = $2; weight[NR] = $1 + 20000; total += weight[NR] }
            END { for (i = 1; i <= NR; i++) {
                unit = int((sum + weight[i] / 2) * units / total); sum += weight[i]
                printf "#include \"%s\"\n", path[i] > sprintf("%s/unit%02d.cc", work, unit) } }'
    cp "$sources/build_version.cc" "$work/"

    # A unit takes up to 1.3 GB: fewer at a time where memory is short.
    jobs=$(awk -v n="$(nproc)" '/MemAvailable/ { m = int($2 / 1400000); print m < 1 ? 1 : m < n ? m : n }' /proc/meminfo)
    say "compiling $(basename "$target") with $cxx, $jobs at a time: about 7 minutes of CPU, once per machine"
    (cd "$work" && printf '%s\n' *.cc | xargs -P "$jobs" -I{} bash -c '
        unit=$1; shift
        "$@" -c "$unit" -o "${unit%.cc}.o" && echo "rocksdb: ${unit%.cc} in $SECONDS s" >&2 || exit 255' unit {} \
        "$cxx" "${flags[@]}" "-I$sources/rocksdb/include" "-I$sources/rocksdb" "-I$sources" "-I$lz4/liblz4/lib") ||
        stop "the compiler failed, see above"
    (cd "$work" && ar crs librocksdb.a ./*.o && rm ./*.o ./*.cc)
    chmod 755 "$work"
    mv -T "$work" "$target"
    say "built in $((SECONDS - started)) s"
}

if [ ! -e "$target/librocksdb.a" ]; then
    mkdir -p "$cache"
    (
        flock -n 9 || { say "another build is running, waiting for it"; flock 9; }
        [ -e "$target/librocksdb.a" ] || build
    ) 9>"$target.lock"
fi

# --- Tell cargo ----------------------------------------------------------------------------------------

settings=$root/.cargo/rocksdb.toml
text="# Written by storage/rocksdb/build.sh: RocksDB as it was compiled for this machine.
[build]
rustc-wrapper = \"\"

[env]
ROCKSDB_LIB_DIR = \"$target\"
ROCKSDB_STATIC = \"1\"
LIBCLANG_PATH = \"$clang\""
[ "$(cat "$settings" 2>/dev/null)" = "$text" ] || printf '%s\n' "$text" >"$settings"
echo "$target"
