//! Telling the owners of objects: conditions written back by server-side apply, and events on transitions. Only the
//! leader writes.
