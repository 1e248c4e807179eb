//! Configurations of proxies as files with a few marks, so that what is measured can be read.
//!
//! * `@name@` is replaced by its value.
//! * A line that begins with `#log# ` holds where an access log is written, one with `#quiet# ` where none is, one with
//!   `#change# ` where routes are added, one with `#guard# ` where an upstream is guarded, one with `#policy# ` where requests are under a
//!   policy, one with `#tls# ` where TLS is ended, and one with `#fault# ` where pods fall ill (`#steady# `: where none do).
//! * A line with `@host@` is repeated for each of [`HOSTS`] hosts.

use crate::peers::Setup;

/// Hosts with a route of their own where the access log is on.
pub(crate) const HOSTS: usize = 1_000;

/// The name of one of them.
pub(crate) fn host(index: usize) -> String {
    format!("host-{}.example.com", index % HOSTS)
}

pub(crate) fn filled(text: &str, setup: Setup, values: &[(&str, String)]) -> String {
    let mut filled = String::new();
    for line in text.lines() {
        let marks = [
            ("#log# ", setup == Setup::Logged),
            ("#quiet# ", setup != Setup::Logged),
            ("#change# ", setup == Setup::Changing),
            ("#guard# ", setup == Setup::Guarded),
            ("#policy# ", setup == Setup::Policed),
            ("#tls# ", setup == Setup::Tls),
            ("#fault# ", setup == Setup::Faulty),
            ("#steady# ", setup != Setup::Faulty),
        ];
        let marked = marks.into_iter().find_map(|(mark, holds)| Some((line.strip_prefix(mark)?, holds)));
        let (line, holds) = marked.unwrap_or((line, true));
        if !holds {
            continue;
        }
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
