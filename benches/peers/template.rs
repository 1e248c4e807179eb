//! Configurations of proxies as files with a few marks, so that what is measured can be read.
//!
//! * `@name@` is replaced by its value.
//! * A line that begins with `#quiet# ` holds where no access log is written, one with `#log# ` where it is.
//! * A line with `@host@` is repeated for each of [`HOSTS`] hosts.

/// Hosts with a route of their own where the access log is on.
pub(crate) const HOSTS: usize = 1_000;

/// The name of one of them.
pub(crate) fn host(index: usize) -> String {
    format!("host-{}.example.com", index % HOSTS)
}

pub(crate) fn filled(text: &str, logged: bool, values: &[(&str, String)]) -> String {
    let mut filled = String::new();
    for line in text.lines() {
        let line = match (line.strip_prefix("#log# "), line.strip_prefix("#quiet# ")) {
            (Some(line), _) if logged => line,
            (_, Some(line)) if !logged => line,
            (None, None) => line,
            _ => continue,
        };
        let mut line = line.to_owned();
        for (name, value) in values {
            line = line.replace(&format!("@{name}@"), value);
        }
        if line.contains("@host@") {
            (0..HOSTS).for_each(|index| filled.push_str(&format!("{}\n", line.replace("@host@", &host(index)))));
        } else {
            filled.push_str(&format!("{line}\n"));
        }
    }
    filled
}
