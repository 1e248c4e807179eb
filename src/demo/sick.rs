//! Echo backends that can be made sick, to see what a proxy makes of it: slow ones, and ones that are dead for a while.

use std::net::SocketAddr;
use std::rc::Rc;

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::proxy::Proxy;
use super::reply::{self, Body};

/// How a backend is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Condition {
    #[default]
    Well,
    /// It takes its time for each answer.
    Slow,
    /// It cuts its connections and refuses new ones, as a process that is gone.
    Dead,
}

/// The backends that can be made sick. Clones are one.
#[derive(Clone, Debug)]
pub(super) struct Ward(Rc<[(SocketAddr, watch::Sender<Condition>)]>);

impl Condition {
    fn word(self) -> &'static str {
        match self {
            Condition::Well => "well",
            Condition::Slow => "slow",
            Condition::Dead => "dead",
        }
    }

    fn named(word: &str) -> Option<Self> {
        [Condition::Well, Condition::Slow, Condition::Dead].into_iter().find(|condition| condition.word() == word)
    }
}

impl Ward {
    /// All are well.
    pub(super) fn of(backends: impl Iterator<Item = SocketAddr>) -> Self {
        Ward(backends.map(|address| (address, watch::Sender::default())).collect())
    }

    /// How a backend is; always well if it is none of the ward's.
    pub(super) fn watch(&self, address: SocketAddr) -> watch::Receiver<Condition> {
        let found = self.0.iter().find(|(of, _)| *of == address);
        found.map_or_else(|| watch::channel(Condition::Well).1, |(_, condition)| condition.subscribe())
    }

    /// `GET /demo/echo` tells how all are, and what the proxy knows of them; `POST /demo/echo/2/dead` makes the second one so.
    pub(super) async fn answer(&self, method: &Method, path: &str, proxy: &Proxy) -> Response<Body> {
        let parts: Vec<&str> = path.split('/').skip(3).collect();
        match (method, &parts[..]) {
            (&Method::GET, []) => {
                let mut told = self.told();
                let known = proxy.endpoints().await;
                for backend in told.as_array_mut().into_iter().flatten() {
                    let same = |endpoint: &&Value| endpoint["address"] == backend["address"];
                    backend["known"] = known.iter().find(same).cloned().unwrap_or_default();
                }
                let mut response = reply::json(&told);
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
            (&Method::POST, [number, condition]) => {
                let place = number.parse::<usize>().ok().and_then(|number| self.0.get(number.checked_sub(1)?));
                match (place, Condition::named(condition)) {
                    (Some((_, place)), Some(condition)) => {
                        place.send_replace(condition);
                        reply::json(&self.told())
                    }
                    _ => {
                        reply::refusal(StatusCode::NOT_FOUND, "Say who, and how: POST /demo/echo/2/dead, slow or well.")
                    }
                }
            }
            _ => reply::only("GET of /demo/echo and POST of /demo/echo/2/dead, slow or well"),
        }
    }

    fn told(&self) -> Value {
        let one = |(address, condition): &(SocketAddr, watch::Sender<Condition>)| json!({"address": address.to_string(), "condition": condition.borrow().word()});
        self.0.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn who_and_how_is_said_in_the_path() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let ward = Ward::of([address(1), address(2)].into_iter());
        let watched = ward.watch(address(2));
        let answer = async |method, path| ward.answer(&method, path, &Proxy::default()).await;
        assert_eq!(answer(Method::POST, "/demo/echo/2/dead").await.status(), 200);
        assert_eq!(*watched.borrow(), Condition::Dead);
        assert_eq!(*ward.watch(address(1)).borrow(), Condition::Well);
        assert_eq!(ward.told()[1], json!({"address": "127.0.0.1:2", "condition": "dead"}));
        for path in ["/demo/echo/0/dead", "/demo/echo/3/dead", "/demo/echo/2/tired", "/demo/echo/x/slow"] {
            assert_eq!(answer(Method::POST, path).await.status(), 404, "{path}");
        }
        assert_eq!(answer(Method::GET, "/demo/echo/2/dead").await.status(), 405);
        let told = answer(Method::GET, "/demo/echo").await.into_body().collect().await.unwrap().to_bytes();
        let told: Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(
            told[1],
            json!({"address": "127.0.0.1:2", "condition": "dead", "known": null}),
            "by a proxy that is not there"
        );
        assert_eq!(*ward.watch(address(3)).borrow(), Condition::Well, "of nobody's concern");
    }
}
