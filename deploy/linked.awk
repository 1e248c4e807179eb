# Leaves of a bill of materials (JSON as cargo-cyclonedx writes it) the crates that the first file names, a line each as `cargo tree` has it: name and
# version. cargo's metadata, which the bill is made of, also has crates that an optional feature would need and nothing switches on.
NR == FNR { kept[$1 "@" substr($2, 2)]; next }

# Whether a line refers to a crate that is not linked.
function stray(line) {
    return match(line, /"registry\+[^"#]*#[^"#]+"/) && !(crate(substr(line, RSTART, RLENGTH)) in kept)
}
function crate(reference) {
    sub(/^.*#/, "", reference)
    sub(/".*$/, "", reference)
    return reference
}
# Prints the entry that was held back, with a comma if another follows.
function release(comma) {
    if (held != "") print held comma
    held = ""
}

/^  "(components|dependencies)": \[$/ { inside = 1; print; next }
inside && /^  \]/ { release(""); inside = 0; print; next }
!inside { print; next }
/^    \{$/ { entry = $0; out = 0; next }
/^    \},?$/ {
    if (!out) { release(","); held = entry "\n    }" }
    next
}
/^      "(bom-)?ref": / { out = out || stray($0) }
/^        "registry\+/ && stray($0) { next }
# The last of a list has no comma.
/^      \]/ { sub(/,$/, "", entry) }
{ entry = entry "\n" $0 }
