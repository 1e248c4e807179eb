//! Sick pods, with a route that asks for retries: as long as one endpoint is well, clients of idempotent requests see no error.
//! How long that takes, `make bench` says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use floodway::snapshot::{Protocol, Retry, Snapshot};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};

use super::endpoints::{Then, saying, unreachable};
use super::retries::{eager, retrying_by};
use super::support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A pod that can be killed, with its connections.
struct Pod {
    address: SocketAddr,
    running: JoinHandle<()>,
}

impl Pod {
    /// One that serves.
    fn start(address: SocketAddr) -> Pod {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        Pod::serving(socket.listen(1024).unwrap())
    }

    fn serving(listener: TcpListener) -> Pod {
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(async move {
            // Dropped with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut client = Raw(stream);
                    while client.request().await.is_some() {
                        client.send(OK).await;
                    }
                });
            }
        });
        Pod { address, running }
    }

    fn anywhere() -> Pod {
        Pod::start(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    async fn kill(self) -> SocketAddr {
        self.running.abort();
        let _ = self.running.await;
        self.address
    }
}

/// Everything that a route can ask for.
fn patient() -> Retry {
    Retry { attempts: 10, per_try_timeout: Some(Duration::from_millis(500)), hold_bytes: 64 * 1024, ..eager() }
}

fn to_pods(endpoints: &[SocketAddr]) -> Snapshot {
    let mut cluster = cluster("backend", Protocol::Http1, endpoints);
    cluster.connections.connect_timeout = Duration::from_millis(300);
    retrying_by(cluster, patient())
}

/// What a client got, on a connection that is kept.
async fn ask(client: &mut Raw) -> String {
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut answer = client.head().await;
    let length = answer
        .to_ascii_lowercase()
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next().map(|length| length.parse::<usize>().unwrap()));
    let mut content = vec![0; length.unwrap()];
    within(client.0.read_exact(&mut content)).await.unwrap();
    answer.push_str(&String::from_utf8_lossy(&content));
    answer
}

/// Asks `count` times on each of four connections.
async fn asked_by_four(plane: &Plane, count: usize) -> Vec<String> {
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let mut client = plane.connect().await;
        clients.spawn(async move {
            let mut answers = Vec::new();
            for _ in 0..count {
                answers.push(ask(&mut client).await);
            }
            answers
        });
    }
    clients.join_all().await.concat()
}

fn all_served(case: &str, answers: &[String]) {
    let wrong =
        answers.iter().find(|answer| !answer.starts_with("HTTP/1.1 200 OK\r\n") || !answer.ends_with("\r\n\r\nok"));
    assert_eq!(wrong, None, "{case}");
}

/// Clients that ask all the time until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    async fn on(plane: &Plane, clients: usize) -> Load {
        let mut load = Load { stop: Arc::default(), served: Arc::default(), clients: JoinSet::new() };
        for _ in 0..clients {
            let mut client = plane.connect().await;
            let (stop, served) = (Arc::clone(&load.stop), Arc::clone(&load.served));
            load.clients.spawn(async move {
                let mut wrong = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask(&mut client).await;
                    if !answer.starts_with("HTTP/1.1 200 OK\r\n") {
                        wrong.push(answer);
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
                wrong
            });
        }
        load.serves(200).await;
        load
    }

    /// Waits for so many more answers.
    async fn serves(&self, more: usize) {
        let goal = self.served.load(Ordering::Relaxed) + more;
        eventually(&format!("{more} more answers"), || self.served.load(Ordering::Relaxed) >= goal).await;
    }

    /// Everything that was not a 200.
    async fn errors(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.concat()
    }
}

async fn slow() -> SocketAddr {
    backend(|mut client| async move {
        while client.request().await.is_some() {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut client.0, OK.as_bytes()).await;
        }
    })
    .await
}

/// Every kind of sickness, by its name. What is returned beside them must be kept.
async fn sick() -> (Vec<(&'static str, SocketAddr)>, impl Sized) {
    let error = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nsick";
    let (hangs_in_connect, kept) = unreachable().await;
    let pods = vec![
        ("refuses", refusing()),
        ("hangs in connect", hangs_in_connect),
        ("hangs before the head", saying("", Then::Stays).await),
        ("hangs after the head", saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Then::Stays).await),
        ("resets", saying("", Then::Resets).await),
        ("answers 500", saying(error, Then::Goes).await),
        ("answers slowly", slow().await),
        ("cuts bodies", saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", Then::Resets).await),
        ("says less than it promised", saying("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", Then::Closes).await),
        ("says more than it promised", saying(format!("{OK}HTTP/1.1 200 OK\r\n\r\nmore"), Then::Goes).await),
        ("says something else", saying("220 smtp.example.com ESMTP\r\n", Then::Stays).await),
    ];
    (pods, kept)
}

#[tokio::test]
async fn beside_a_pod_of_any_sickness_clients_see_no_error() {
    let (pods, _kept) = sick().await;
    let well = Pod::anywhere();
    for (case, pod) in pods {
        let plane = Plane::start(to_pods(&[pod, well.address]));
        all_served(case, &asked_by_four(&plane, 10).await);
    }
}

#[tokio::test]
async fn one_pod_that_is_well_is_enough() {
    let (pods, _kept) = sick().await;
    let well = Pod::anywhere();
    // No more than there are attempts.
    let mut endpoints: Vec<_> = pods.into_iter().map(|(_, address)| address).take(9).collect();
    endpoints.push(well.address);
    let plane = Plane::start(to_pods(&endpoints));
    all_served("all but one", &asked_by_four(&plane, 10).await);
}

#[tokio::test]
async fn if_all_pods_are_sick_clients_are_told_soon() {
    let (pods, _kept) = sick().await;
    let endpoints: Vec<_> = pods.into_iter().map(|(_, address)| address).collect();
    // Without the one that serves all the same.
    let endpoints = &endpoints[..9];
    let plane = Plane::start(to_pods(endpoints));
    for answer in asked_by_four(&plane, 2).await {
        let status = answer.split(' ').nth(1).unwrap();
        assert!(matches!(status, "500" | "502" | "503" | "504"), "{answer}");
    }
    for line in plane.logged_times("/", 8).await {
        assert!(line["attempts"].as_u64().unwrap() <= 10, "{line}");
    }
}

#[tokio::test]
async fn pods_that_come_and_go_under_load_are_not_seen() {
    let well = Pod::anywhere();
    let mut flapping = Pod::anywhere();
    let plane = Plane::start(to_pods(&[flapping.address, well.address]));
    let load = Load::on(&plane, 16).await;
    for _ in 0..8 {
        let address = flapping.kill().await;
        load.serves(300).await;
        flapping = Pod::start(address);
        load.serves(300).await;
    }
    assert_eq!(load.errors().await, [""; 0]);
}

#[tokio::test]
async fn a_slice_that_vanishes_under_load_is_not_seen() {
    let (mut going, staying): (Vec<_>, Vec<_>) =
        ((0..20).map(|_| Pod::anywhere()).collect(), (0..20).map(|_| Pod::anywhere()).collect());
    let addresses = |pods: &[Pod]| pods.iter().map(|pod| pod.address).collect::<Vec<_>>();
    let all = [addresses(&going), addresses(&staying)].concat();
    let plane = Plane::start(to_pods(&all));
    let load = Load::on(&plane, 16).await;
    for pod in going.drain(..) {
        pod.kill().await;
    }
    // The table knows it later.
    load.serves(500).await;
    plane.publisher.publish(to_pods(&addresses(&staying)));
    load.serves(500).await;
    assert_eq!(load.errors().await, [""; 0]);
}

#[tokio::test]
async fn a_thousand_endpoints_that_are_replaced_at_once_under_load_are_not_seen() {
    // One socket that takes connections to all addresses of the loopback device, and to no other device.
    let everywhere = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind_device(Some(b"lo")).unwrap();
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
        socket.listen(1024).unwrap();
        socket.set_nonblocking(true).unwrap();
        let pod = Pod::serving(TcpListener::from_std(socket.into()).unwrap());
        let port = pod.address.port();
        let addresses: Vec<SocketAddr> = (0..1000_u16)
            .map(|number| ([127, 1, (number / 250) as u8, (number % 250) as u8 + 1], port).into())
            .collect();
        (pod, addresses)
    };
    let (before, old) = everywhere();
    let plane = Plane::start(to_pods(&old));
    let load = Load::on(&plane, 16).await;
    let mut pods = vec![before];
    for _ in 0..3 {
        let (after, new) = everywhere();
        plane.publisher.publish(to_pods(&new));
        load.serves(200).await;
        pods.pop().unwrap().kill().await;
        pods.push(after);
        load.serves(500).await;
    }
    assert_eq!(load.errors().await, [""; 0]);
}
