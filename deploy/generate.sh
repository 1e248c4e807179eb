#!/usr/bin/env bash
# Writes what is generated: crds/ from the types in src/api, the chart's copy of it, and deploy/floodway.yaml from the
# chart. Called by make, which builds helm first.
#   deploy/generate.sh            writes everything
#   deploy/generate.sh --crds     writes crds/ and the chart's copy alone
#   deploy/generate.sh --check    writes nothing; fails and names what differs
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-}
helm=target/kube-tools/helm

# The chart as plain manifests, without the labels that only mean something to Helm.
render() {
    cat <<'HEAD'
# Generated from charts/floodway by `make manifests`; edits are lost. Before it: kubectl apply -f crds/
apiVersion: v1
kind: Namespace
metadata:
  name: floodway-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
HEAD
    "$helm" template floodway charts/floodway --namespace floodway-system --skip-tests |
        sed -e '/^ *app.kubernetes.io\/managed-by: Helm$/d' -e '/^ *helm.sh\/chart: /d' -e '/^# Source: /d' -e '/^$/d'
}

# CARGO may be set by make.
crds() { "${CARGO:-cargo}" test --quiet --test crds the_folder_holds_what_is_generated; }

case $mode in
--check)
    differs=0
    crds >/dev/null || { echo "drift: crds/ is not what src/api says; run 'make crds'" >&2; differs=1; }
    diff -ru crds charts/floodway/crds >&2 || { echo "drift: charts/floodway/crds is not crds/; run 'make crds'" >&2; differs=1; }
    diff -u deploy/floodway.yaml <(render) >&2 || { echo "drift: deploy/ is not what the chart says; run 'make manifests'" >&2; differs=1; }
    [ "$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)" = "$(sed -n 's/^appVersion: "\(.*\)"/\1/p' charts/floodway/Chart.yaml)" ] ||
        { echo "drift: appVersion in charts/floodway/Chart.yaml is not the version in Cargo.toml" >&2; differs=1; }
    [ "$differs" = 0 ] && echo "crds/, charts/floodway/crds and deploy/ are what the code generates."
    exit "$differs"
    ;;
"" | --crds)
    UPDATE_GOLDEN=1 crds >/dev/null
    rm -rf charts/floodway/crds
    cp -r crds charts/floodway/crds
    echo "wrote crds/ and charts/floodway/crds/"
    ;;
*)
    echo "usage: $0 [--crds|--check]" >&2
    exit 2
    ;;
esac

if [ -z "$mode" ]; then
    render >deploy/floodway.yaml.new
    mv deploy/floodway.yaml.new deploy/floodway.yaml
    echo "wrote deploy/floodway.yaml"
fi
