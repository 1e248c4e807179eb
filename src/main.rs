//! The `floodway` program: reads the command line and hands over to [`floodway::app`].

use std::process::ExitCode;

/// Measured in docs/benchmarks.md: with jemalloc, memory goes back to the system after a burst of streams.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    floodway::app::main()
}
