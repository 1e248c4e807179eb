#!/bin/sh
# Makes the programs that tests need available to them, and says on the terminal where they come from. They are built from
# source (Go modules only) when their stamp does not match the go.mod and go.sum files beside this script: h2spec and the
# client and server of gRPC's interoperability tests into target/http2-tools; helm, and promql (Prometheus's parsers and engine), into
# target/kube-tools; etcd and kube-apiserver
# there, too, and kubectl, unless KUBEBUILDER_ASSETS names a folder that has them; and the definitions of the Prometheus operator's kinds.
# The tests look in the same places. With the argument `node`, what else a node needs for the tests in tests/e2e is built into
# target/kube-tools.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
target=$(CDPATH='' cd -- "$here/../.." && pwd)/target
kube=${FLOODWAY_KUBE_TOOLS:-$target/kube-tools}
http2=$target/http2-tools

# The version a go.mod requires of a module.
required() {
    sed -n "s|^\(require \)\{0,1\}[[:space:]]*$2 \(v[^ ]*\).*|\2|p" "$here/$1/go.mod" | head -n 1
}

# build CACHE MODULE TOOL PACKAGE VERSION LDFLAGS WHY
build() {
    cache=$1 module=$2 tool=$3 package=$4 version=$5 ldflags=$6 why=$7
    stamp=$(cat "$here/$module/go.mod" "$here/$module/go.sum" "$here/$module/"*.go 2>/dev/null | cksum)
    if [ -x "$cache/$tool" ] && [ "$(cat "$cache/$tool.stamp" 2>/dev/null)" = "$stamp" ]; then
        echo "For the tests: $tool $version, already built in target/${cache##*/}."
        return
    fi
    if ! command -v go >/dev/null 2>&1; then
        echo "error: Go is needed to build $tool for the tests, and 'go' was not found." >&2
        echo "Install Go $(sed -n 's/^go //p' "$here/$module/go.mod") or later (https://go.dev/doc/install)." >&2
        return 1
    fi
    echo "For the tests: building $tool $version from source, once. $why"
    mkdir -p "$cache"
    rm -f "$cache/$tool.stamp"
    (cd "$here/$module" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "-s -w $ldflags" \
        -o "$cache/$tool" "$package")
    echo "$stamp" >"$cache/$tool.stamp"
}

grpc=$(required grpc-interop google.golang.org/grpc)
h2spec=$(required h2spec github.com/summerwind/h2spec)
build "$http2" h2spec h2spec github.com/summerwind/h2spec/cmd/h2spec "$h2spec" "" "It takes a few seconds."
build "$http2" grpc-interop grpc-interop-server google.golang.org/grpc/interop/server "$grpc" "" \
    "It takes about half a minute."
build "$http2" grpc-interop grpc-interop-client google.golang.org/grpc/interop/client "$grpc" "" \
    "It takes about half a minute."

build "$target/kube-tools" helm helm helm.sh/helm/v4/cmd/helm "$(required helm helm.sh/helm/v4)" "" \
    "It takes about two minutes."

build "$target/kube-tools" promql promql . "$(required promql github.com/prometheus/prometheus)" "" \
    "It takes about half a minute on two cores."

kubernetes=$(required kube-apiserver k8s.io/kubernetes)

# kubernetes TOOL WHY: a program of Kubernetes, which says its version to clients only if it is told.
kubernetes() {
    minor=${kubernetes#v1.}
    v=k8s.io/component-base/version
    build "$kube" kube-apiserver "$1" "k8s.io/kubernetes/cmd/$1" "$kubernetes" \
        "-X $v.gitVersion=$kubernetes -X $v.gitMajor=1 -X $v.gitMinor=${minor%%.*}" "$2"
}

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    for tool in etcd kube-apiserver; do
        if [ ! -x "$KUBEBUILDER_ASSETS/$tool" ]; then
            echo "error: KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no executable '$tool'." >&2
            echo "Put it there, or unset KUBEBUILDER_ASSETS to have it built from source." >&2
            exit 1
        fi
    done
    echo "For the tests: etcd and kube-apiserver from KUBEBUILDER_ASSETS ($KUBEBUILDER_ASSETS)."
else
    build "$kube" etcd etcd go.etcd.io/etcd/server/v3 "$(required etcd go.etcd.io/etcd/server/v3)" "" \
        "It takes about half a minute."
    kubernetes kube-apiserver "It is the whole API server: about four minutes on two cores."
    kubernetes kubectl "It takes a few seconds."
fi

# definitions: of the kinds of the Prometheus operator that the chart makes, which are files of its module; nothing is built.
definitions() {
    operator=github.com/prometheus-operator/prometheus-operator
    version=$(required prometheus-operator $operator)
    folder=$target/kube-tools/monitoring
    stamp=$(cat "$here/prometheus-operator/go.mod" "$here/prometheus-operator/go.sum" | cksum)
    if [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ]; then
        echo "For the tests: definitions of the Prometheus operator $version, already in target/kube-tools."
        return
    fi
    echo "For the tests: definitions of the Prometheus operator $version, once. It takes a few seconds."
    module=$(cd "$here/prometheus-operator" && go mod download -json "$operator" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p')
    rm -rf "$folder"
    mkdir -p "$folder"
    for kind in servicemonitors podmonitors prometheusrules; do
        cp "$module/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$folder"
    done
    chmod u+w "$folder"/*.yaml
    echo "$stamp" >"$folder/stamp"
}
definitions

[ "${1:-}" = node ] || exit 0

kubernetes kube-controller-manager "It takes about a minute on two cores."
kubernetes kube-scheduler "It takes a few seconds."
kubernetes kubelet "It takes about half a minute on two cores."
kubernetes kube-proxy "It takes a few seconds."
kubernetes kubectl "It takes a few seconds."
plugins=github.com/containernetworking/plugins
for plugin in meta/portmap main/ptp main/loopback ipam/host-local; do
    build "$kube" cni "${plugin##*/}" "$plugins/plugins/$plugin" "$(required cni $plugins)" "" "It takes a few seconds."
done
build "$kube" coredns coredns github.com/coredns/coredns "$(required coredns github.com/coredns/coredns)" "" \
    "It takes about a minute and a half on two cores."
