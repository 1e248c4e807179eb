#!/usr/bin/env bash
# Builds the program as it is in images, optimised, with jemalloc and linked statically, and prints where it is.
#   deploy/program.sh [--arch amd64|arm64] [--target|--libc|--profile|--counting FOLDER]
# With --target, --libc or --profile it builds nothing, and prints what it would build for, the name and version of the C library, or which profile
# would fit. With --counting it builds a program that writes into the folder what it ran, for deploy/profile.sh.
# Its C library is that of the Rust toolchain that builds it: glibc on most systems, musl on Alpine. CARGO may be set by make.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

case $(uname -m) in
x86_64) native=amd64 ;;
aarch64 | arm64) native=arm64 ;;
*) native= ;;
esac
arch=$native asked= counting=
while [ $# -gt 0 ]; do
    case $1 in
    --target | --libc | --profile) asked=${1#--} && shift ;;
    --counting) counting=${2:-} && shift 2 || fail "--counting needs a folder" ;;
    --arch) arch=${2:-} && shift 2 || fail "--arch needs a value: amd64 or arm64" ;;
    *) fail "unknown argument '$1'; usage: deploy/program.sh [--arch amd64|arm64] [--target|--libc|--profile|--counting FOLDER]" ;;
    esac
done
case $arch in
amd64) cpu=x86_64 ;;
arm64) cpu=aarch64 ;;
*) fail "Floodway is built for amd64 and arm64, not for '$arch'" ;;
esac
[ "$(uname -s)" = Linux ] || fail "the program of an image is built on Linux, and this is $(uname -s); the Dockerfile builds it anywhere"

# The linker and the C compiler for it: the usual one here, a cross compiler elsewhere.
host=$(rustc -vV | sed -n 's/^host: //p')
libc=gnu
case $host in *-musl) libc=musl ;; esac
target=$cpu-unknown-linux-$libc
if [ "$asked" = target ]; then echo "$target" && exit; fi
compiler=cc name=${target//-/_}
if [ "$target" != "$host" ]; then
    [ -d "$(rustc --print target-libdir --target "$target")" ] ||
        fail "Rust has no standard library for $target here: 'rustup target add $target', then run this again"
    compiler=$cpu-linux-$libc-gcc
    command -v "$compiler" >/dev/null ||
        fail "a C compiler for $target is missing ('$compiler'); on Debian: 'apt-get install gcc-${cpu//_/-}-linux-$libc libc6-dev-$arch-cross'"
    export "CC_$name=$compiler" "CARGO_TARGET_${name^^}_LINKER=$compiler"
fi
if [ "$asked" = libc ]; then
    case $libc in
    musl) echo "musl $(ldd 2>&1 | sed -n 's/^Version //p')" ;;
    gnu) "$compiler" -E -dM -include features.h -xc /dev/null |
        awk '$2 == "__GLIBC__" { major = $3 } $2 == "__GLIBC_MINOR__" { minor = $3 } END { print "glibc " major "." minor }' ;;
    esac
    exit
fi
# jemalloc works where pages are smaller than what it was built for, not where they are larger; on arm64 they have up to 64 KiB.
if [ "$arch" = arm64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi
# There, rustc gives a static program with glibc a fixed address unless the linker knows better.
if [ "$arch-$libc" = arm64-gnu ]; then export "CARGO_TARGET_${name^^}_LINKER=$PWD/deploy/static-pie.sh" "FLOODWAY_CC=$compiler"; fi

# Texts of panics say where a crate lay when it was compiled. rustc leaves the home of cargo out of them, so that the same program comes out
# whatever that is called; cargo keeps this flag out of what names of symbols are made of. RUSTFLAGS of the environment stay, those of
# cargo's configuration do not count.
home=${CARGO_HOME:-$HOME/.cargo}
case $home in /*) ;; *) home=$PWD/$home ;; esac
flags=()
if [ -n "${CARGO_ENCODED_RUSTFLAGS:-}" ]; then IFS=$'\x1f' read -ra flags <<<"$CARGO_ENCODED_RUSTFLAGS"; else read -ra flags <<<"${RUSTFLAGS:-}"; fi
flags+=("--remap-path-prefix=${home%/}/registry/src=crates")

# What is run often is compiled for speed, and laid apart from what is run seldom or never, so that less of the program is in memory. What
# that is, a profile says (deploy/profile.sh makes it). It names functions as one version of Rust names them for one target and with these
# crates: with others it would fit some functions and not those that call them, which makes a program larger than none at all, so then
# it is not used. Functions that have changed since are compiled as without a profile.
profile=deploy/floodway.profdata fits="$(rustc --version) for $target with $(cat Cargo.toml Cargo.lock | cksum)"
if [ "$asked" = profile ]; then echo "$fits" && exit; fi
if [ -n "$counting" ]; then
    flags+=("-Cprofile-generate=$counting")
elif [ "$(cat "$profile.txt")" != "$fits" ]; then
    printf 'note: there is no profile for %s, so the program becomes slower and takes more memory\n' "$fits" >&2
else
    # cargo looks at flags, not at what files hold.
    unpacked=$PWD/target/$(cksum <"$profile.xz" | tr ' ' -).profdata
    if [ ! -f "$unpacked" ]; then
        mkdir -p target
        xz -dc "$profile.xz" >"$unpacked.new" || fail "xz is missing, or $profile.xz is broken; on Debian: 'apt-get install xz-utils'"
        mv "$unpacked.new" "$unpacked"
    fi
    flags+=("-Cprofile-use=$unpacked" -Cllvm-args=-no-pgo-warn-mismatch "-Clink-arg=-Wl,-z,keep-text-section-prefix")
fi
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf %s "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS

# The target is always named, so that these flags, and static linking, are not for macros and build scripts, which run here.
"${CARGO:-cargo}" rustc --release --locked --bin floodway --features jemalloc --target "$target" -- -Ctarget-feature=+crt-static >&2

echo "${CARGO_TARGET_DIR:-target}/$target/release/floodway"
