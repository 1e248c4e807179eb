//! The admin port: /livez, /readyz, /metrics, /config_dump and the log level. Runs on the control thread, never on a
//! worker. Not the place for anything a client of the proxy may reach.
