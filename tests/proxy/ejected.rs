//! Endpoints that are ejected get nothing, and clients see nothing of those that refuse.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use floodway::snapshot::{Cluster, Ejection, Protocol, Resilience, Snapshot};

use super::support::*;

/// A backend that answers everything with a status.
async fn answering(status: u16) -> SocketAddr {
    let serve = move |mut client: Raw| async move {
        while client.request().await.is_some() {
            client.send(format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n")).await;
        }
    };
    backend(serve).await
}

fn judged(endpoints: &[SocketAddr], ejection: Option<Ejection>) -> Snapshot {
    let resilience = Arc::new(Resilience { ejection, ..Resilience::default() });
    let cluster = Cluster { resilience, ..cluster("backend", Protocol::Http1, endpoints) };
    snapshot(vec![forward("", "backend")], vec![cluster])
}

async fn statuses(plane: &Plane, count: usize) -> Vec<String> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        let answer = plane.exchange("GET / HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\n\r\n").await;
        statuses.push(answer.split(' ').nth(1).unwrap().to_owned());
    }
    statuses
}

#[tokio::test]
async fn an_endpoint_that_fails_too_often_gets_nothing_more() {
    let endpoints = [answering(200).await, answering(500).await];
    let rules = Ejection { consecutive_failures: 3, base: Duration::from_secs(600), ..Ejection::default() };
    let plane = Plane::start(judged(&endpoints, Some(rules)));
    let seen = statuses(&plane, 100).await;
    assert_eq!(seen.iter().filter(|status| *status == "500").count(), 3, "{seen:?}");
    assert!(seen[60..].iter().all(|status| status == "200"), "{seen:?}");
}

#[tokio::test]
async fn a_refused_connection_is_nobodys_loss_and_not_tried_by_the_next() {
    let endpoints = [answering(200).await, refusing()];
    let plane = Plane::start(judged(&endpoints, None));
    assert!(statuses(&plane, 40).await.iter().all(|status| status == "200"));
    // Nobody lets it in again here: the sweep is the control thread's.
    assert_eq!(plane.metric("floodway_upstream_connects_total", "failure"), 1.0);
}
