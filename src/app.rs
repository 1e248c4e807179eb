//! Where the control plane and the data plane meet: builds a source, a translator, a publisher and a proxy, and joins
//! them. Nothing else in the crate sees both sides.

use std::process::ExitCode;

/// Runs the program with the arguments of the process; the exit code is 0 for success, 2 for wrong usage or
/// configuration, 1 for failure.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
