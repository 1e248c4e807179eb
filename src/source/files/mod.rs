//! Objects from a folder of YAML, reloaded as it changes.
