//! Why there is no connection to Redis, or no answer: in words of ours alone. What Redis says is not told, because some of its errors repeat
//! what they were asked, a password included.

use std::fmt;
use std::io::ErrorKind;

use redis::RedisError;

use super::script::Failed;

/// What is wrong, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody listens there, or it cannot be reached.
    Connect(ErrorKind),
    /// It took too long.
    Slow,
    /// There is no TLS; why.
    Tls(&'static str),
    /// A file of the settings cannot be used; which.
    File(&'static str),
    /// It does not take the user and the password, or wants some.
    Password,
    /// It does not have the database.
    Database,
    /// The user may not do what is needed.
    Forbidden,
    /// It only reads.
    ReadOnly,
    /// It reads its data, or runs something that takes long.
    Busy,
    /// It has no memory left.
    Full,
    /// It is part of a cluster, and not the part that has the keys.
    Cluster,
    /// It closed the connection.
    Closed,
    /// It says something else.
    Nonsense,
}

impl Trouble {
    pub(super) fn of(failed: &Failed) -> Self {
        let error = match failed {
            Failed::Nonsense => return Trouble::Nonsense,
            Failed::Error(error) => error,
        };
        match error.code() {
            Some("NOAUTH" | "WRONGPASS") => Trouble::Password,
            Some("NOPERM") => Trouble::Forbidden,
            Some("READONLY") => Trouble::ReadOnly,
            Some("LOADING" | "BUSY" | "MASTERDOWN") => Trouble::Busy,
            Some("OOM") => Trouble::Full,
            Some("MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" | "TRYAGAIN") => Trouble::Cluster,
            _ if is_gone(error) => Trouble::Closed,
            _ => Trouble::Nonsense,
        }
    }
}

fn is_gone(error: &RedisError) -> bool {
    error.is_io_error() || error.is_connection_dropped()
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Connect(kind) => write!(f, "it cannot be reached: {kind}"),
            Trouble::Tls(why) => write!(f, "there is no TLS with it: {why}"),
            Trouble::File(which) => write!(f, "the file of rateLimits.redis.{which} cannot be used"),
            Trouble::Slow => f.write_str("it does not answer in time"),
            Trouble::Password => f.write_str("it does not take the user and the password, or it wants some"),
            Trouble::Database => f.write_str("it does not have the database of rateLimits.redis.database"),
            Trouble::Forbidden => f.write_str(
                "the user may not do what is needed: EVAL, EVALSHA, GET, SET, TIME and PING on keys with the prefix",
            ),
            Trouble::ReadOnly => f.write_str("it is a replica that takes no writes"),
            Trouble::Busy => f.write_str("it is busy with something else"),
            Trouble::Full => f.write_str("it has no memory left"),
            Trouble::Cluster => {
                f.write_str("it is part of a cluster, and does not have the keys; name a proxy of the cluster")
            }
            Trouble::Closed => f.write_str("it closed the connection"),
            Trouble::Nonsense => f.write_str("it answers with something that Floodway does not understand"),
        }
    }
}
