//! What is asked of Redis, and what its answers mean.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::{Answer, Question};
use crate::resilience::rate::Rate;

const SCRIPT: &str = include_str!("script.lua");

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// Redis says so, or it cannot be asked.
    Error(RedisError),
    /// What it answers makes no sense.
    Nonsense,
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Self {
        Failed::Error(error)
    }
}

/// The script, and the name that Redis knows it by.
#[derive(Debug)]
pub(super) struct Script {
    sha1: String,
}

impl Script {
    pub(super) fn new() -> Self {
        // The name is Redis' own; nothing rests on it that SHA-1 could not bear.
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, SCRIPT.as_bytes());
        Script { sha1: hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// Asks, in one round trip if Redis knows the script, and has it learn it otherwise.
    pub(super) async fn ask(
        &self,
        connection: &MultiplexedConnection,
        prefix: &str,
        questions: &[Question],
    ) -> Result<Answer, Failed> {
        let mut connection = connection.clone();
        let short = command("EVALSHA", &self.sha1, prefix, questions);
        let said = match short.query_async::<Vec<i64>>(&mut connection).await {
            // After a restart, or a SCRIPT FLUSH. Nothing was counted.
            Err(error) if error.code() == Some("NOSCRIPT") => {
                command("EVAL", SCRIPT, prefix, questions).query_async(&mut connection).await?
            }
            said => said?,
        };
        read(&said, questions).ok_or(Failed::Nonsense)
    }

    /// Asks something that counts nothing for anybody, so that it is known whether asking works, and the script is known to Redis.
    pub(super) async fn probe(&self, connection: &MultiplexedConnection, prefix: &str) -> Result<(), Failed> {
        let rate = Rate::new(1_000_000, Duration::from_secs(1), 1_000_000);
        let question = [Question { key: "{probe}".into(), rate }];
        let said = command("EVAL", SCRIPT, prefix, &question).query_async::<Vec<i64>>(&mut connection.clone()).await?;
        read(&said, &question).map(drop).ok_or(Failed::Nonsense)
    }
}

fn command(name: &str, script: &str, prefix: &str, questions: &[Question]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(questions.len());
    for question in questions {
        command.arg(format!("{prefix}{}", question.key));
    }
    for time in questions.iter().flat_map(|question| <[Duration; 2]>::from(question.rate.times())) {
        command.arg(time.as_secs()).arg(time.subsec_nanos());
    }
    command
}

/// `None` if it makes no sense.
fn read(said: &[i64], questions: &[Question]) -> Option<Answer> {
    let (first, times) = said.split_first()?;
    let time = |pair: &[i64]| match *pair {
        [seconds, nanos] => {
            let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
            // More than any bucket takes to fill, but for a clock that was set back.
            Some(Duration::new(u64::try_from(seconds).ok().filter(|seconds| *seconds < 1 << 33)?, nanos))
        }
        _ => None,
    };
    match usize::try_from(*first).ok()? {
        0 if times.len() == questions.len() * 2 => {
            let left = times.chunks(2).zip(questions).map(|(pair, question)| Some(question.rate.left_of(time(pair)?)));
            left.collect::<Option<Vec<_>>>().map(Answer::Passed)
        }
        at if (1..=questions.len()).contains(&at) => Some(Answer::Refused { at: at - 1, wait: time(times)? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resilience::rate::Left;

    #[test]
    fn answers_are_read_and_nonsense_is_none() {
        let rate = Rate::new(1, Duration::from_secs(1), 3);
        let questions = ["a", "b"].map(|key| Question { key: key.into(), rate });
        let left = |tokens, seconds| Left { tokens, full_in: Duration::from_secs(seconds) };
        assert_eq!(read(&[0, 1, 0, 3, 0], &questions), Some(Answer::Passed(vec![left(2, 1), left(0, 3)])));
        let wait = Duration::new(1, 5);
        assert_eq!(read(&[2, 1, 5], &questions), Some(Answer::Refused { at: 1, wait }));
        for nonsense in [
            &[][..],
            &[0],
            &[0, 1, 0],
            &[0, 1, 0, 3, 0, 4],
            &[3, 1, 0],
            &[-1, 1, 0],
            &[1],
            &[1, 2],
            &[1, -1, 0],
            &[1, 0, -1],
            &[1, 0, 1_000_000_000],
            &[1, i64::MAX, 0],
        ] {
            assert_eq!(read(nonsense, &questions), None, "{nonsense:?}");
        }
    }

    /// As `sha1sum` has it, in Redis' way of writing.
    #[test]
    fn the_name_of_the_script_is_its_sha1() {
        let name = Script::new().sha1;
        assert!(name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
    }
}
