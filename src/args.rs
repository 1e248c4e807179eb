//! The command line: one struct per subcommand, no behaviour.
