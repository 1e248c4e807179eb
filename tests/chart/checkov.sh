#!/usr/bin/env bash
# What checkov says of everything that the chart makes of the values in docs/install.md and tests/chart/values. A check that fails has to be
# mended, or stand in checkov.yaml with a reason; one that stands there and does not fail any more has to go. Nothing of it leaves the
# machine: only pip asks for anything, once, and checkov runs without a way to the network where that can be made, else with proxies
# that are not there.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/venv.sh
here=tests/chart venv=target/checkov helm=target/kube-tools/helm

[ -x "$helm" ] || {
    echo "error: $helm is missing: run 'make test-tools'." >&2
    exit 1
}
venv "$venv" "$here/checkov.txt" checkov

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/home" "$work/values" "$work/rendered"
cp "$here"/values/*.yaml "$work/values"
: >"$work/values/defaults.yaml"
# Every block of values of the page on installing, each a file of its own.
awk -v to="$work/values/install" '/^```yaml$/ { inside = 1; count++; next } /^```$/ { inside = 0 } inside { print > (to "-" count ".yaml") }' docs/install.md
for values in "$work"/values/*.yaml; do
    "$helm" template floodway charts/floodway --namespace edge -f "$values" --set monitoring.force=true \
        >"$work/rendered/$(basename "$values")"
done

offline=(env)
if unshare --net true 2>/dev/null; then
    offline=(unshare --net)
elif unshare --user --map-root-user --net true 2>/dev/null; then
    offline=(unshare --user --map-root-user --net)
fi
"${offline[@]}" env HOME="$work/home" BC_SKIP_MAPPING=TRUE CKV_GITHUB_CONFIG_FETCH_DATA=False LOG_LEVEL=ERROR \
    HTTPS_PROXY=http://127.0.0.1:9 HTTP_PROXY=http://127.0.0.1:9 \
    "$venv/bin/checkov" --directory "$work/rendered" --framework kubernetes --skip-download --output json --soft-fail \
    >"$work/said.json" 2>"$work/errors" || { cat "$work/errors" >&2; exit 1; }
"$venv/bin/python" "$here/checkov.py" "$work/said.json" "$here/checkov.yaml"
