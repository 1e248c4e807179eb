#!/usr/bin/env bash
# What `make e2e` does: makes the tools of a node and the image available, and runs the tests in tests/e2e. Arguments are theirs: parts of
# names of scenarios, --write, --keep, --keep-files. BINARY names a program to put into the image instead of the one that is shipped.
set -eu
cd "$(dirname -- "$0")/../.."

if [ "$(uname -s)" != Linux ] || [ "$(id -u)" != 0 ]; then
    echo "End-to-end tests: SKIPPED. They bring up a Kubernetes node, which needs Linux and root; run 'make e2e' as root there."
    exit 0
fi
case $(uname -m) in
aarch64 | arm64) arch=arm64 ;;
*) arch=amd64 ;;
esac

# A step in a process group of its own, which is ended as a whole if somebody asks for the end.
child=
trap '[ -z "$child" ] || kill -TERM -- "-$child" 2>/dev/null; exit 130' INT TERM HUP
step() {
    set -m
    "$@" &
    child=$!
    set +m
    wait "$child"
    child=
}
step tests/tools/build.sh node
step deploy/image.sh ${BINARY:+--binary "$BINARY"} --arch $arch --no-sbom --tag registry.example.com/floodway:0.1.0
messages=target/e2e-tests.json
step "${CARGO:-cargo}" test --quiet --test e2e --no-run --message-format=json-render-diagnostics >"$messages"
tests=$(sed -n 's/.*"name":"e2e".*"executable":"\([^"]*\)".*/\1/p' "$messages")

# Without cargo in between, whoever runs this waits until everything is taken away again, whatever signal ends it.
export FLOODWAY_E2E=1 FLOODWAY_E2E_IMAGE="$PWD/target/image/floodway-$arch.tar"
trap - INT TERM HUP
exec "$tests" "$@"
