#!/usr/bin/env bash
# Makes the image and its SBOM with deploy/image.sh, validates the SBOM against CycloneDX's schema, and runs tests/image on them.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=target/cyclonedx

command -v python3 >/dev/null || {
    echo "error: python3 is missing (the validator of SBOMs is in Python). Install it: 'apt-get install python3-venv'." >&2
    exit 1
}
deploy/image.sh "$@"

stamp=$(cksum <tests/image/requirements.txt)
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
    echo "Fetching the validator of CycloneDX from PyPI into $venv, once."
    rm -rf "$venv"
    python3 -m venv "$venv" || {
        echo "error: Python cannot make environments. Install what it lacks: 'apt-get install python3-venv'." >&2
        exit 1
    }
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement tests/image/requirements.txt
    echo "$stamp" >"$venv/stamp"
fi
"$venv/bin/python" tests/image/valid.py target/image/*.cdx.json
"${CARGO:-cargo}" test --quiet --test image -- --include-ignored --nocapture
