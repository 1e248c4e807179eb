//! Runs the backends: one thread, one listener for each address that the folder speaks of.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use super::banner::reachable;
use super::proxy::Proxy;
use super::reply::Body;
use super::sick::{Condition, Ward};
use super::{DemoError, Folder, clock, echo, files, page, socket};

/// How long a slow backend takes for an answer.
const SLOW: Duration = Duration::from_secs(1);
/// Pause after something that the system refused.
const RETRY: Duration = Duration::from_millis(50);

/// What a Service of the demo does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Page,
    Clock,
    Socket,
    Files,
    Echo,
}

/// What the backends know.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) folder: Folder,
    pub(super) ward: Ward,
    pub(super) proxy: Proxy,
}

/// The running backends. They end when this is dropped.
#[derive(Debug)]
pub struct Backends {
    proxy: Proxy,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Backends {
    /// Binds every loopback address of an EndpointSlice of a Service that the demo knows, and serves it.
    ///
    /// # Errors
    /// If the folder cannot be read, or an address is taken.
    pub fn start(folder: &Folder) -> Result<Self, DemoError> {
        let mut listeners = Vec::new();
        for (service, address) in folder.backends()? {
            let Some(role) = Role::named(&service) else { continue };
            let listener = bind(address).map_err(|error| DemoError::Taken {
                service,
                address,
                error,
                folder: folder.path().to_owned(),
            })?;
            listeners.push((role, address, listener));
        }
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (folder, proxy) = (folder.clone(), Proxy::default());
        let told = proxy.clone();
        let thread = std::thread::Builder::new().name("demo".to_owned()).spawn(move || {
            let local = LocalSet::new();
            let echoes = listeners.iter().filter(|(role, ..)| *role == Role::Echo);
            let ward = Ward::of(echoes.map(|(_, address, _)| *address));
            let place = Rc::new(Place { folder, ward, proxy: told });
            local.block_on(&runtime, async move {
                for (role, address, listener) in listeners {
                    tokio::task::spawn_local(serve(role, address, listener, Rc::clone(&place)));
                }
                // Ends with an error when the sender is dropped, which is what is waited for.
                let _ = stopped.await;
            });
        })?;
        Ok(Backends { proxy, stop: Some(stop), thread: Some(thread) })
    }

    /// Tells them of the proxy before them, so that the page can show what it knows of them.
    pub fn stand_behind(&self, admin: SocketAddr) {
        self.proxy.is_at(reachable(admin));
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Role {
    fn named(service: &str) -> Option<Self> {
        Some(match service {
            "page" => Role::Page,
            "clock" => Role::Clock,
            "socket" => Role::Socket,
            "files" => Role::Files,
            "echo" => Role::Echo,
            _ => return None,
        })
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(role: Role, address: SocketAddr, mut listener: TcpListener, place: Rc<Place>) {
    let mut condition = place.ward.watch(address);
    loop {
        let Ok(open) = tokio::net::TcpListener::from_std(listener) else { return };
        // Connections end with this set, as those of a process that is gone.
        let mut connections = JoinSet::new();
        while *condition.borrow_and_update() != Condition::Dead {
            tokio::select! {
                accepted = open.accept() => match accepted {
                    Ok((stream, _)) => {
                        let _ = stream.set_nodelay(true);
                        let place = Rc::clone(&place);
                        let service = service_fn(move |request| {
                            let place = Rc::clone(&place);
                            async move { Ok::<_, Infallible>(answer(role, address, request, &place).await) }
                        });
                        let builder = http1::Builder::new().timer(TokioTimer::new()).clone();
                        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
                        connections.spawn_local(connection);
                    }
                    // Out of file descriptors, most likely: others must get a chance to close theirs.
                    Err(_) => sleep(RETRY).await,
                },
                Some(_) = connections.join_next() => {}
                Ok(()) = condition.changed() => {}
            }
        }
        drop((open, connections));
        if condition.wait_for(|condition| *condition != Condition::Dead).await.is_err() {
            return;
        }
        listener = loop {
            match bind(address) {
                Ok(listener) => break listener,
                Err(_) => sleep(RETRY).await,
            }
        };
    }
}

async fn answer(role: Role, address: SocketAddr, request: Request<Incoming>, place: &Place) -> Response<Body> {
    if *place.ward.watch(address).borrow() == Condition::Slow {
        sleep(SLOW).await;
    }
    match role {
        Role::Page => page::answer(&request, place).await,
        Role::Clock => clock::answer(request.uri(), request.headers()),
        Role::Socket => socket::answer(request),
        Role::Files => files::answer(request).await,
        Role::Echo => echo::answer(address, request).await,
    }
}
