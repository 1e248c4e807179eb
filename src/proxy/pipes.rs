//! Pipes of the kernel, through which large content goes from one socket to another: its pages change hands, and nobody copies
//! them into the process and out again (splice(2)). Which content may go unseen is `http1`'s to say. Linux alone has this;
//! elsewhere there are no pipes, and content is read and written.

pub(super) use self::system::Piped;

#[cfg(target_os = "linux")]
mod system {
    use std::cell::{Cell, RefCell};
    use std::io;
    use std::os::fd::OwnedFd;
    use std::task::{Context, Poll, ready};

    use rustix::io::Errno;
    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
    use tokio::io::Interest;
    use tokio::net::TcpStream;

    /// What a pipe holds if the kernel lets it be so large, and what passes at once.
    const SIZE: usize = 512 * 1024;
    /// Pipes that a worker has open at most, those included that are filled and wait for a slow peer. Whoever finds none reads
    /// and writes.
    const MOST: usize = 8;

    thread_local! {
        static PIPES: Pipes = Pipes::default();
    }

    /// Those of a worker.
    #[derive(Default)]
    struct Pipes {
        empty: RefCell<Vec<Ends>>,
        open: Cell<usize>,
        /// Whether this system does not do it.
        refused: Cell<bool>,
    }

    #[derive(Debug)]
    struct Ends {
        reading: OwnedFd,
        writing: OwnedFd,
    }

    impl Ends {
        fn open() -> rustix::io::Result<Self> {
            let (reading, writing) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            // A user who has many pages in pipes gets small ones, which will do.
            let _ = fcntl_setpipe_size(&writing, SIZE);
            Ok(Ends { reading, writing })
        }
    }

    /// A pipe, and how many bytes are in it.
    #[derive(Debug)]
    pub(in crate::proxy) struct Piped {
        /// Until it is dropped.
        ends: Option<Ends>,
        length: usize,
    }

    impl Piped {
        /// An empty one of the worker, if it has one left.
        pub(in crate::proxy) fn take() -> Option<Self> {
            PIPES.with(|pipes| {
                if pipes.refused.get() {
                    return None;
                }
                let kept = pipes.empty.borrow_mut().pop();
                let ends = match kept {
                    Some(ends) => ends,
                    None if pipes.open.get() >= MOST => return None,
                    // Without descriptors for it there will be some later.
                    None => {
                        let ends = Ends::open().ok()?;
                        pipes.open.set(pipes.open.get() + 1);
                        ends
                    }
                };
                Some(Piped { ends: Some(ends), length: 0 })
            })
        }

        /// Whether nothing is in it.
        pub(in crate::proxy) fn is_empty(&self) -> bool {
            self.length == 0
        }

        /// Has what came to `socket` go into it, at most `most` bytes: ready with how many they are, 0 at the end. `None` if that
        /// cannot be done here; nothing was read then.
        pub(in crate::proxy) fn poll_fill(
            &mut self,
            cx: &mut Context<'_>,
            socket: &TcpStream,
            most: usize,
        ) -> Option<Poll<io::Result<usize>>> {
            let ends = self.ends.as_ref()?;
            loop {
                match socket.poll_read_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                    Poll::Pending => return Some(Poll::Pending),
                }
                match socket.try_io(Interest::READABLE, || Ok(pass(socket, &ends.writing, most.min(SIZE))?)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // A sandbox may know nothing of it, or forbid it.
                    Err(error)
                        if [Errno::INVAL, Errno::NOSYS, Errno::PERM].map(Errno::kind).contains(&error.kind()) =>
                    {
                        PIPES.with(|pipes| pipes.refused.set(true));
                        return None;
                    }
                    filled => {
                        self.length += filled.as_ref().copied().unwrap_or_default();
                        return Some(Poll::Ready(filled));
                    }
                }
            }
        }

        /// Has what is in it go out by `socket`: ready with how much that took.
        pub(in crate::proxy) fn poll_empty(
            &mut self,
            cx: &mut Context<'_>,
            socket: &TcpStream,
        ) -> Poll<io::Result<usize>> {
            let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
            loop {
                ready!(socket.poll_write_ready(cx))?;
                match socket.try_io(Interest::WRITABLE, || Ok(pass(&ends.reading, socket, self.length)?)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    taken => {
                        self.length = self.length.saturating_sub(taken.as_ref().copied().unwrap_or_default());
                        return Poll::Ready(taken);
                    }
                }
            }
        }
    }

    fn pass(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, most: usize) -> rustix::io::Result<usize> {
        splice(from, None, to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)
    }

    impl Drop for Piped {
        /// Who leaves something in it gets no other's place with it.
        fn drop(&mut self) {
            let ends = self.ends.take();
            // Fails when the thread ends, and its pipes with it.
            let _ = PIPES.try_with(|pipes| match ends {
                Some(ends) if self.length == 0 => pipes.empty.borrow_mut().push(ends),
                _ => pipes.open.set(pipes.open.get().saturating_sub(1)),
            });
        }
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use std::future::poll_fn;

        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        use tokio::net::TcpListener;

        use super::*;

        async fn pair() -> (TcpStream, TcpStream) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
            (near.unwrap(), far.unwrap().0)
        }

        #[tokio::test]
        async fn bytes_pass_unchanged_and_pipes_are_used_again() {
            let (mut source, inner) = pair().await;
            let (outer, mut sink) = pair().await;
            for round in 0..20_u8 {
                source.write_all(&[round; 3000]).await.unwrap();
                let mut got = [0; 3000];
                let mut piped = Piped::take().unwrap();
                let mut filled = 0;
                while filled < got.len() {
                    filled += poll_fn(|cx| piped.poll_fill(cx, &inner, 5000).unwrap()).await.unwrap();
                }
                while !piped.is_empty() {
                    poll_fn(|cx| piped.poll_empty(cx, &outer)).await.unwrap();
                }
                sink.read_exact(&mut got).await.unwrap();
                assert_eq!(got, [round; 3000]);
            }
            PIPES.with(|pipes| assert_eq!(pipes.open.get(), 1));
            source.shutdown().await.unwrap();
            let mut piped = Piped::take().unwrap();
            assert_eq!(poll_fn(|cx| piped.poll_fill(cx, &inner, 5000).unwrap()).await.unwrap(), 0);
        }

        /// What somebody left in a pipe gets to nobody else, and does not cost the worker a pipe for good.
        #[tokio::test]
        async fn there_are_few_and_none_is_used_again_with_something_in_it() {
            let (mut source, inner) = pair().await;
            source.write_all(&[1; 100_000]).await.unwrap();
            for _ in 0..3 {
                let mut all: Vec<_> = std::iter::from_fn(Piped::take).collect();
                assert_eq!(all.len(), MOST);
                poll_fn(|cx| all[0].poll_fill(cx, &inner, 10).unwrap()).await.unwrap();
            }
            let all: Vec<_> = std::iter::from_fn(Piped::take).collect();
            for piped in &all {
                let mut byte = [0];
                assert_eq!(rustix::io::read(&piped.ends.as_ref().unwrap().reading, &mut byte), Err(Errno::AGAIN));
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::task::{Context, Poll};

    use tokio::net::TcpStream;

    /// There is none.
    #[derive(Debug)]
    pub(in crate::proxy) enum Piped {}

    impl Piped {
        pub(in crate::proxy) fn take() -> Option<Self> {
            None
        }

        pub(in crate::proxy) fn is_empty(&self) -> bool {
            match *self {}
        }

        pub(in crate::proxy) fn poll_fill(
            &mut self,
            _: &mut Context<'_>,
            _: &TcpStream,
            _: usize,
        ) -> Option<Poll<io::Result<usize>>> {
            match *self {}
        }

        pub(in crate::proxy) fn poll_empty(&mut self, _: &mut Context<'_>, _: &TcpStream) -> Poll<io::Result<usize>> {
            match *self {}
        }
    }
}
