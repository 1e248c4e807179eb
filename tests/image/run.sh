#!/usr/bin/env bash
# Makes the image and its SBOM with deploy/image.sh, validates the SBOM against CycloneDX's schema, and runs tests/image on them.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/venv.sh
venv=target/cyclonedx

deploy/image.sh "$@"
venv "$venv" tests/image/requirements.txt "the validator of SBOMs"
"$venv/bin/python" tests/image/valid.py target/image/*.cdx.json
"${CARGO:-cargo}" test --quiet --test image -- --include-ignored --nocapture
