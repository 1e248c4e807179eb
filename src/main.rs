//! The `floodway` program: reads the command line and hands over to [`floodway::app`].

use std::process::ExitCode;

fn main() -> ExitCode {
    floodway::app::main()
}
