#!/usr/bin/env bash
# Writes the image that the Dockerfile describes without a container engine: a tar archive in OCI's layout, which containerd
# (`ctr images import`), `docker load`, `podman load` and kind (`kind load image-archive`) take, and the SBOM of the program in it.
#   deploy/image.sh [--arch amd64|arm64] [--tag NAME] [--binary FILE] [--no-sbom] [--out FOLDER] | --labels
# writes target/image/floodway-ARCH.tar and target/image/floodway-ARCH.cdx.json. The program is built (deploy/program.sh) unless
# --binary names one; if that is linked dynamically, its libraries come along, which is meant for developing.
# With --labels it makes nothing, and prints what the labels of the image say of its source; `make image` takes them from here.
#
# The same program, authorities and commit make the same bytes: names are sorted, owners and times fixed. Needs bash, coreutils, GNU tar and
# gzip. What stands below `FROM scratch` in the Dockerfile is read from there, so that both images are one.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C TZ=UTC
unset GZIP TAR_OPTIONS
umask 022

# Tools are built once into target/tools, as make has it.
CARGO_CYCLONEDX=0.5.9

fail() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}
say() { printf '%s\n' "$*" >&2; }

case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64 | arm64) arch=arm64 ;;
*) arch= ;;
esac
tag=floodway:dev binary= sbom=yes out=target/image asked=
while [ $# -gt 0 ]; do
    case $1 in
    --no-sbom) sbom= && shift ;;
    --labels) asked=labels && shift ;;
    --arch | --tag | --binary | --out)
        [ -n "${2:-}" ] || fail "$1 needs a value"
        declare "${1#--}=$2"
        shift 2
        ;;
    *) fail "unknown argument '$1'" "usage: deploy/image.sh [--arch amd64|arm64] [--tag NAME] [--binary FILE] [--no-sbom] [--out FOLDER] | --labels" ;;
    esac
done
case $arch in
amd64) machine=62 ;;
arm64) machine=183 ;;
*) fail "images are made for amd64 and arm64, not for '$arch'" ;;
esac
# What containerd and docker call an image, in full: registry, path and tag.
grep -Eqx '([a-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?' <<<"$tag" ||
    fail "'$tag' is not a name of an image, such as registry.example.com/floodway:0.1.0"
case ${tag##*/} in *:*) ;; *) tag=$tag:latest ;; esac
name=$tag
case $name in
*/*)
    case ${name%%/*} in
    *.* | *:* | localhost) ;;
    *) name=docker.io/$name ;;
    esac
    ;;
*) name=docker.io/library/$name ;;
esac

# What is known of the source. Times are that of the commit, unless SOURCE_DATE_EPOCH says otherwise.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision= epoch=${SOURCE_DATE_EPOCH:-}
if git rev-parse --verify --quiet HEAD >/dev/null 2>&1; then
    revision=$(git rev-parse HEAD)
    epoch=${epoch:-$(git log -1 --format=%ct)}
    [ -z "$(git status --porcelain --untracked-files=no)" ] || revision=$revision-modified
fi
epoch=${epoch:-0}
created=$(date -u -d "@$epoch" +%FT%TZ 2>/dev/null || date -u -r "$epoch" +%FT%TZ 2>/dev/null) || fail "SOURCE_DATE_EPOCH is '$epoch', and not seconds since 1970"
source=${SOURCE:-}
if [ -z "$source" ]; then
    source=$(git remote get-url origin 2>/dev/null | sed -nE 's#^https://([^/@]*@)?#https://#p' || true)
fi
grep -Eqx '[A-Za-z0-9:/._~-]*' <<<"$source" || fail "SOURCE is '$source', and not an address of a repository"
# The labels of that, a line each. What is not known has none.
known() {
    local what
    for what in version revision created source; do
        [ -z "${!what}" ] || echo "org.opencontainers.image.$what=${!what}"
    done
}
if [ "$asked" = labels ]; then known && exit; fi

tar --version 2>/dev/null | grep -q 'GNU tar' || fail "GNU tar is missing ('tar' is another one here)"
for tool in gzip sha256sum od; do command -v "$tool" >/dev/null || fail "$tool is missing"; done

# The program, and what is linked into it beside crates.
libc=
if [ -z "$binary" ]; then
    binary=$(deploy/program.sh --arch "$arch")
    libc=$(deploy/program.sh --arch "$arch" --libc)
fi
[ -f "$binary" ] || fail "there is no file '$binary'"
[ "$(od -An -tx1 -N4 "$binary" | tr -d ' ')" = 7f454c46 ] || fail "'$binary' is not a program for Linux"
[ "$(od -An -tu2 -j18 -N2 "$binary" | tr -d ' ')" = "$machine" ] || fail "'$binary' is a program for another processor than $arch"

# Whom the system trusts: Debian and Alpine, Fedora, openSUSE.
authorities=
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem; do
    if [ -s "$file" ]; then authorities=$file && break; fi
done
[ -n "$authorities" ] || fail "this system has no bundle of certificates of authorities; on Debian: 'apt-get install ca-certificates'"

mkdir -p "$out"
work=$(mktemp -d "$out/making.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The one layer.
layer=$work/layer
mkdir -p "$layer/etc/ssl/certs"
cp "$binary" "$layer/floodway"
chmod 755 "$layer/floodway"
cp -L "$authorities" "$layer/etc/ssl/certs/ca-certificates.crt"
libraries=$(ldd "$binary" 2>/dev/null | grep -Eo '/[^ ()]+' || true)
if [ -n "$libraries" ]; then
    say "note: $binary is linked dynamically; its libraries come along, so that it runs, and the image is not the one that is published"
    for library in $libraries; do
        mkdir -p "$layer${library%/*}"
        cp -L "$library" "$layer$library"
    done
fi
files=$(cd "$layer" && printf '%s ' *)
# shellcheck disable=SC2086 # several names
tar --create --file="$work/layer.tar" --directory="$layer" --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX $files
digest() { sha256sum "$1" | cut -d' ' -f1; }
size() { stat -c %s "$1"; }
diff=$(digest "$work/layer.tar")
unpacked=$(size "$work/layer.tar")
gzip -9 -n "$work/layer.tar"

# What the Dockerfile says below `FROM scratch`.
described() { sed -n '/^FROM scratch/,$p' Dockerfile | sed -n "s/^$1 //p"; }
ports=$(described EXPOSE | tr -s ' ' '\n' | sed 's|.*|"&/tcp":{}|' | paste -sd,)
labels=$(
    {
        sed -n '/^FROM scratch/,$p' Dockerfile | sed -nE 's/^(LABEL| ) *(org\.opencontainers\.image\.[a-z]+)="([^"]*)".*/\2=\3/p'
        known
    } | sed 's/^\([^=]*\)=\(.*\)/"\1":"\2"/' | sort | paste -sd,
)

# put FILE: a blob by its digest; prints what refers to it.
blobs=$work/image/blobs/sha256
mkdir -p "$blobs"
put() {
    local hash
    hash=$(digest "$1")
    mv "$1" "$blobs/$hash"
    printf '"digest":"sha256:%s","size":%s' "$hash" "$(size "$blobs/$hash")"
}
printf '{"architecture":"%s","config":{"Cmd":%s,"Entrypoint":%s,"ExposedPorts":{%s},"Labels":{%s},"User":"%s","WorkingDir":"/"},"created":"%s","history":[{"created":"%s","created_by":"deploy/image.sh"}],"os":"linux","rootfs":{"diff_ids":["sha256:%s"],"type":"layers"}}' \
    "$arch" "$(described CMD)" "$(described ENTRYPOINT)" "$ports" "$labels" "$(described USER)" "$created" "$created" "$diff" >"$work/config"
config=$(put "$work/config")
packed=$(size "$work/layer.tar.gz")
content=$(put "$work/layer.tar.gz")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip",%s}]}' \
    "$config" "$content" >"$work/manifest"
manifest=$(put "$work/manifest")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
    "$manifest" "$arch" "$name" "${name##*:}" >"$work/image/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
# For `docker load` of engines that do not know OCI's layout.
path() { sed -E 's|.*sha256:([0-9a-f]+)".*|blobs/sha256/\1|' <<<"$1"; }
printf '[{"Config":"%s","RepoTags":["%s"],"Layers":["%s"]}]' "$(path "$config")" "$tag" "$(path "$content")" >"$work/image/manifest.json"
tar --create --file="$work/image.tar" --directory="$work/image" --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX blobs index.json manifest.json oci-layout
mv "$work/image.tar" "$out/floodway-$arch.tar"

# The bill of materials: of crates by cargo's own plugin, and the two things that are not crates. Without a random number, so that it is
# the same every time.
bill_of_materials() {
    local tool=target/tools/bin/cargo-cyclonedx
    if [ "$("$tool" cyclonedx --version 2>/dev/null)" != "cargo-cyclonedx-cyclonedx $CARGO_CYCLONEDX" ]; then
        say "Building cargo-cyclonedx $CARGO_CYCLONEDX, once; it takes about a minute."
        CARGO_TARGET_DIR=target/tools/build "${CARGO:-cargo}" install cargo-cyclonedx --quiet --locked \
            --version "$CARGO_CYCLONEDX" --root target/tools
        rm -rf target/tools/build
    fi
    local target
    target=$(deploy/program.sh --arch "$arch" --target)
    # It writes beside Cargo.toml.
    trap 'rm -rf "$work" floodway-image-sbom.json' EXIT
    SOURCE_DATE_EPOCH=$epoch "$tool" cyclonedx --quiet --format json --spec-version 1.5 --target "$target" --features jemalloc \
        --no-build-deps --override-filename floodway-image-sbom
    "${CARGO:-cargo}" tree --locked --features jemalloc --target "$target" --edges normal --prefix none --format '{p}' >"$work/linked"
    awk -f deploy/linked.awk "$work/linked" floodway-image-sbom.json >"$work/bill"
    mv "$work/bill" floodway-image-sbom.json
    local hash others
    hash=$(digest "$layer/etc/ssl/certs/ca-certificates.crt")
    others="    {\"type\":\"data\",\"bom-ref\":\"ca-certificates\",\"name\":\"ca-certificates\",\"version\":\"$hash\",\"description\":\"Certificates of authorities that the system trusted where the image was made\",\"hashes\":[{\"alg\":\"SHA-256\",\"content\":\"$hash\"}]},"
    case $libc in
    "glibc "*) others+="{\"type\":\"library\",\"bom-ref\":\"glibc\",\"name\":\"glibc\",\"version\":\"${libc#* }\",\"description\":\"The C library, linked statically\",\"licenses\":[{\"license\":{\"id\":\"LGPL-2.1-or-later\"}}],\"cpe\":\"cpe:2.3:a:gnu:glibc:${libc#* }:*:*:*:*:*:*:*\",\"purl\":\"pkg:generic/glibc@${libc#* }\"}," ;;
    "musl "*) others+="{\"type\":\"library\",\"bom-ref\":\"musl\",\"name\":\"musl\",\"version\":\"${libc#* }\",\"description\":\"The C library, linked statically\",\"licenses\":[{\"license\":{\"id\":\"MIT\"}}],\"cpe\":\"cpe:2.3:a:musl-libc:musl:${libc#* }:*:*:*:*:*:*:*\",\"purl\":\"pkg:generic/musl@${libc#* }\"}," ;;
    esac
    # Crates of ours are named by where they lie; that is nobody's affair.
    sed -e "s|path+file://$PWD#|floodway#|g" -e "s|file://$PWD|file://.|g" -e "/^  \"components\": \[\$/a\\
$others" floodway-image-sbom.json >"$work/sbom"
    rm floodway-image-sbom.json
    mv "$work/sbom" "$out/floodway-$arch.cdx.json"
}
if [ -n "$sbom" ]; then bill_of_materials; fi

megabytes() { awk -v bytes="$1" 'BEGIN { printf "%.1f MB", bytes / 1e6 }'; }
say "$out/floodway-$arch.tar: $name, linux/$arch; $(megabytes "$packed") to pull, $(megabytes "$unpacked") unpacked"
