//! What hyper needs of a runtime: tasks and timers of the worker's own thread.

use std::future::Future;

/// Runs hyper's tasks on the worker that owns the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}
