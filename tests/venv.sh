# Sourced by scripts that run programs in Python: an environment of its own for each, made once from PyPI, and anew when what it holds
# changes.

# venv FOLDER REQUIREMENTS WHAT
venv() {
    local folder=$1 requirements=$2 what=$3 stamp
    command -v python3 >/dev/null || {
        echo "error: python3 is missing ($what is a program in Python). Install it: 'apt-get install python3-venv'." >&2
        exit 1
    }
    stamp=$(cksum <"$requirements")
    [ "$(cat "$folder/stamp" 2>/dev/null)" != "$stamp" ] || return 0
    echo "Fetching $what from PyPI into $folder, once."
    rm -rf "$folder"
    python3 -m venv "$folder" || {
        echo "error: Python cannot make environments. Install what it lacks: 'apt-get install python3-venv'." >&2
        exit 1
    }
    "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
    echo "$stamp" >"$folder/stamp"
}
