#!/bin/sh
# What `make e2e` does: makes the tools of a node and the image available, and runs the tests in tests/e2e. Arguments are theirs: parts of
# names of scenarios, --write, --keep, --keep-files. BINARY names a program to put into the image instead of the one that is shipped.
set -eu
cd "$(dirname -- "$0")/../.."

if [ "$(uname -s)" != Linux ] || [ "$(id -u)" != 0 ]; then
    echo "End-to-end tests: SKIPPED. They bring up a Kubernetes node, which needs Linux and root; run 'make e2e' as root there."
    exit 0
fi
tests/tools/build.sh node
case $(uname -m) in
aarch64 | arm64) arch=arm64 ;;
*) arch=amd64 ;;
esac
deploy/image.sh ${BINARY:+--binary "$BINARY"} --arch $arch --no-sbom --tag registry.example.com/floodway:0.1.0
export FLOODWAY_E2E=1 FLOODWAY_E2E_IMAGE="$PWD/target/image/floodway-$arch.tar"
exec "${CARGO:-cargo}" test --quiet --test e2e -- "$@"
