//! Objects from an API server: watches that fill the store.
