#!/usr/bin/env bash
# What a scanner says of TLS with clients: sslyze, held against Mozilla's intermediate profile (https://wiki.mozilla.org/Security/Server_Side_TLS),
# looks at a Floodway that serves a certificate of each kind. Fails on any finding. Nothing is exempt: the certificates are short-lived, of
# kinds and signatures that the profile takes, and sslyze is told to trust their authority.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/venv.sh
here=tests/sslyze venv=target/sslyze program=${FLOODWAY:-target/debug/floodway} host=sslyze.test

command -v openssl >/dev/null || {
    echo "error: openssl is missing (it makes the certificates of this test). Install it: 'apt-get install openssl'." >&2
    exit 1
}
venv "$venv" "$here/requirements.txt" sslyze

work=$(mktemp -d) server=
cleanup() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap cleanup EXIT

# An authority, and two certificates that it signs.
mkdir "$work/routes"
make_key() { openssl genpkey -quiet -out "$1" "${@:2}"; }
ecdsa=(-algorithm EC -pkeyopt ec_paramgen_curve:P-256)
rsa=(-algorithm RSA -pkeyopt rsa_keygen_bits:2048)
make_key "$work/ca.key" "${ecdsa[@]}"
openssl req -x509 -new -key "$work/ca.key" -sha256 -days 30 -subj "/CN=Floodway test authority" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" -out "$work/ca.crt"
cat >"$work/leaf.cnf" <<END
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:$host
END
for kind in ecdsa rsa; do
    declare -n options=$kind
    make_key "$work/routes/$kind.key" "${options[@]}"
    openssl req -new -key "$work/routes/$kind.key" -subj "/CN=$host" -out "$work/$kind.csr"
    openssl x509 -req -in "$work/$kind.csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -sha256 -days 30 -set_serial "$RANDOM" \
        -extfile "$work/leaf.cnf" -out "$work/routes/$kind.crt" 2>/dev/null
done
cat >"$work/routes/route.yaml" <<END
apiVersion: floodway.dev/v1alpha1
kind: ProxyRoute
metadata: {name: scanned}
spec:
  hosts: [$host]
  tls: {secretName: ecdsa, alternateSecretName: rsa, redirect: true, hsts: {maxAge: 17520h}}
  rules: [{respond: {status: 200, body: scanned}}]
END

"$program" standalone "$work/routes" --http 127.0.0.1:0 --https 127.0.0.1:0 --admin 127.0.0.1:0 --workers 2 \
    --log-format text >"$work/log" 2>&1 &
server=$!
port=
for _ in $(seq 300); do
    port=$(sed -n 's/.*https on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$work/log" | head -n 1)
    [ -n "$port" ] && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
if [ -z "$port" ]; then
    echo "error: $program does not serve; it said:" >&2
    cat "$work/log" >&2
    exit 1
fi

# One that did not run is a finding, too.
if "$venv/bin/sslyze" --mozilla_config=intermediate --certinfo_ca_file="$work/ca.crt" "$host:$port{127.0.0.1}" >"$work/said" 2>&1 &&
    grep -q "$host:$port: OK - Compliant" "$work/said" && ! grep -q "Error when running" "$work/said"; then
    sed -n '/^ COMPLIANCE/,$p' "$work/said"
else
    cat "$work/said"
    echo "error: sslyze has findings, see above." >&2
    exit 1
fi
