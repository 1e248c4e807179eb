#!/bin/sh
# Makes etcd and kube-apiserver available to the tests, and says on the terminal where they come from:
# KUBEBUILDER_ASSETS if it is set, else target/kube-tools, which is built from source (Go modules only) when its stamp
# does not match the go.mod and go.sum files beside this script. The tests look in the same two places.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${FLOODWAY_KUBE_TOOLS:-$here/../../target/kube-tools}

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    for tool in etcd kube-apiserver; do
        if [ ! -x "$KUBEBUILDER_ASSETS/$tool" ]; then
            echo "error: KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no executable '$tool'." >&2
            echo "Put it there, or unset KUBEBUILDER_ASSETS to have it built from source." >&2
            exit 1
        fi
    done
    echo "Kubernetes for the tests: etcd and kube-apiserver from KUBEBUILDER_ASSETS ($KUBEBUILDER_ASSETS)."
    exit 0
fi

# The version a go.mod requires of a module.
required() {
    sed -n "s|^\(require \)\{0,1\}[[:space:]]*$2 \(v[^ ]*\).*|\2|p" "$here/$1/go.mod" | head -n 1
}

# build TOOL PACKAGE VERSION LDFLAGS WHY
build() {
    tool=$1 package=$2 version=$3 ldflags=$4 why=$5
    stamp=$(cat "$here/$tool/go.mod" "$here/$tool/go.sum" | cksum)
    if [ -x "$cache/$tool" ] && [ "$(cat "$cache/$tool.stamp" 2>/dev/null)" = "$stamp" ]; then
        echo "Kubernetes for the tests: $tool $version, already built in target/kube-tools."
        return
    fi
    if ! command -v go >/dev/null 2>&1; then
        echo "error: Go is needed to build $tool for the tests against a real API server, and 'go' was not found." >&2
        echo "Install Go $(sed -n 's/^go //p' "$here/$tool/go.mod") or later (https://go.dev/doc/install)," >&2
        echo "or set KUBEBUILDER_ASSETS to a folder that holds etcd and kube-apiserver." >&2
        exit 1
    fi
    echo "Kubernetes for the tests: building $tool $version from source, once. $why"
    mkdir -p "$cache"
    rm -f "$cache/$tool.stamp"
    (cd "$here/$tool" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "-s -w $ldflags" \
        -o "$cache/$tool" "$package")
    echo "$stamp" >"$cache/$tool.stamp"
}

build etcd go.etcd.io/etcd/server/v3 "$(required etcd go.etcd.io/etcd/server/v3)" "" \
    "It takes about half a minute."

kubernetes=$(required kube-apiserver k8s.io/kubernetes)
minor=${kubernetes#v1.}
v=k8s.io/component-base/version
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "$kubernetes" \
    "-X $v.gitVersion=$kubernetes -X $v.gitMajor=1 -X $v.gitMinor=${minor%%.*}" \
    "It is the whole API server: about four minutes on two cores."
