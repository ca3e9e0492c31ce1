//! What a callback may not reach: whatever is not of the public internet, however it is asked for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::Response;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use respond_async::Owner;
use respond_async::operations::{Delivery, DeliveryStatus};
use respond_async::webhook::{Webhooks, WebhooksBuilder};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::receiver::Receiver;
use crate::{local, operations, owner, secret, settled, submit};

/// A port at which nobody should call, in both families.
struct Listener {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Listener {
    async fn start() -> Self {
        let connections: Arc<AtomicUsize> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Where there is no IPv6, there is nothing to reach by it.
        let other = TcpListener::bind(("::1", port)).await.ok();
        for listener in [Some(listener), other].into_iter().flatten() {
            let seen = Arc::clone(&connections);
            tokio::spawn(async move {
                while let Ok((_stream, _)) = listener.accept().await {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { port, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Says what it likes of each name: the answers in turn.
struct Liar {
    answers: Vec<Vec<IpAddr>>,
    asked: Arc<AtomicUsize>,
}

impl Resolve for Liar {
    fn resolve(&self, _: Name) -> Resolving {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.answers[number % self.answers.len()].clone();
        Box::pin(async move {
            let addresses = answer.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

fn liar<const N: usize>(answers: [&[&str]; N]) -> (Liar, Arc<AtomicUsize>) {
    let parse = |answer: &[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
    let asked = Arc::default();
    (Liar { answers: answers.into_iter().map(parse).collect(), asked: Arc::clone(&asked) }, asked)
}

/// As a service would have it, but for the scheme and the ports: so nothing but the addresses stands in the way.
fn strict() -> WebhooksBuilder {
    Webhooks::builder(|_: &Owner| vec![secret()])
        .allow_http()
        .ports([])
        .host_rate(1_000_000)
        .host_concurrency(1_000)
        .owner_concurrency(1_000)
        .concurrency(1_000)
        .connect_timeout(Duration::from_millis(300))
        .backoff(Duration::ZERO, Duration::ZERO)
}

#[tokio::test]
async fn no_name_leads_inside() {
    let listener = Listener::start().await;
    // Public ones are in company, so nothing is sent to them either.
    let (resolver, asked) = liar([
        &["127.0.0.1"],
        &["8.8.8.8", "127.0.0.1"],
        &["127.0.0.1", "8.8.8.8"],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["64:ff9b::7f00:1"],
        &["2002:7f00:1::1"],
        &["169.254.169.254"],
        &["10.0.0.1", "2606:4700:4700::1111"],
        &["0.0.0.0"],
        &["::"],
        &[],
    ]);
    let webhooks = strict().resolver(resolver).deadline(Duration::from_secs(60)).build().unwrap();
    let operations = operations(&webhooks).start();
    for name in 0..200 {
        let url = format!("http://n{name}.example:{}/", listener.port);
        submit(&operations, webhooks.check(&url, &owner()).unwrap(), 0).await;
    }
    while asked.load(Ordering::Relaxed) < 10_000 {
        assert_eq!(listener.connections(), 0);
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(listener.connections(), 0);
}

#[tokio::test]
async fn a_name_of_thousands_of_addresses_is_none() {
    let many: Vec<String> =
        (0..10_000).map(|n| format!("9.9.{}.{}", n / 250, n % 250 + 1)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (resolver, asked) = liar([&many]);
    let webhooks =
        strict().resolver(resolver).deadline(Duration::from_millis(300)).build().unwrap();
    let operations = operations(&webhooks).start();
    let callback = webhooks.check("http://many.example/", &owner()).unwrap();
    let id = submit(&operations, callback, 0).await;
    assert_eq!(settled(&operations, id).await.status, DeliveryStatus::Dead);
    assert!(asked.load(Ordering::Relaxed) > 0);
}

/// What is kept in the store by a version, or by a setting, that thought otherwise.
#[tokio::test]
async fn what_was_accepted_is_looked_at_again() {
    let listener = Listener::start().await;
    let open = local().build().unwrap();
    let webhooks = strict().deadline(Duration::from_secs(60)).build().unwrap();
    let operations = operations(&webhooks).start();
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0", "2130706433", "localhost."] {
        let url = format!("http://{host}:{}/", listener.port);
        let callback = open.check(&url, &owner()).unwrap();
        if host == "localhost." {
            // A name is looked at when it is called.
            assert!(webhooks.check(&url, &owner()).is_ok());
            submit(&operations, callback, 0).await;
            sleep(Duration::from_millis(200)).await;
            continue;
        }
        assert!(webhooks.check(&url, &owner()).is_err());
        let id = submit(&operations, callback, 0).await;
        let delivery = settled(&operations, id).await;
        assert_eq!((delivery.status, delivery.attempts), (DeliveryStatus::Dead, 1), "{host}");
    }
    assert_eq!(listener.connections(), 0);
}

#[tokio::test]
async fn redirects_lead_nowhere() {
    let listener = Listener::start().await;
    for status in [301, 302, 303, 307, 308] {
        let target = format!("http://127.0.0.1:{}/", listener.port);
        let receiver = Receiver::start(move |_| {
            let redirect = Response::builder().status(status).header("location", &target);
            redirect.body(String::new()).unwrap()
        })
        .await;
        let webhooks = local().deadline(Duration::from_millis(200)).build().unwrap();
        let operations = operations(&webhooks).start();
        let callback = webhooks.check(&receiver.url("/"), &owner()).unwrap();
        let id = submit(&operations, callback, 0).await;
        assert_eq!(settled(&operations, id).await.status, DeliveryStatus::Dead, "{status}");
        assert!(!receiver.calls().is_empty());
    }
    assert_eq!(listener.connections(), 0);
}

/// Nobody learns from it what is there inside.
#[tokio::test]
async fn a_refused_a_filtered_and_a_silent_port_look_alike() {
    async fn last_error(webhooks: Webhooks, url: &str) -> Delivery {
        let operations = operations(&webhooks).start();
        let callback = webhooks.check(url, &owner()).unwrap();
        let id = submit(&operations, callback, 0).await;
        loop {
            sleep(Duration::from_millis(20)).await;
            match operations.delivery(&owner(), id).await.unwrap() {
                Some(delivery) if delivery.last_error.is_some() => return delivery,
                _ => {}
            }
        }
    }
    let slow = || local().backoff(Duration::from_secs(60), Duration::from_secs(60));
    let listener = Listener::start().await;
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // It accepts connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (resolver, _) = liar([&["127.0.0.1"]]);
    let strict =
        strict().resolver(resolver).backoff(Duration::from_secs(60), Duration::from_secs(60));
    let told = [
        last_error(slow().build().unwrap(), &format!("http://{unused}/")).await,
        last_error(slow().build().unwrap(), &format!("http://{silent}/")).await,
        last_error(slow().build().unwrap(), &format!("https://127.0.0.1:{}/", listener.port)).await,
        last_error(strict.build().unwrap(), &format!("http://a.example:{}/", listener.port)).await,
    ];
    let told = told.map(|delivery| serde_json::to_value(delivery.last_error).unwrap());
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    assert_eq!(told[0]["detail"], "The endpoint could not be reached.");
}

/// Whatever the scheme: what goes around it is looked at by nobody.
#[tokio::test]
async fn all_calls_go_by_the_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // By its name, which may lead inside; no other may.
    let proxy = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let (resolver, asked) = liar([&["127.0.0.1"]]);
    let webhooks = strict()
        .resolver(resolver)
        .egress_proxy(proxy.parse().unwrap())
        .backoff(Duration::from_secs(60), Duration::from_secs(60))
        .build()
        .unwrap();
    let operations = operations(&webhooks).start();
    for (url, expected) in [
        ("http://plain.example/done", "POST http://plain.example/done HTTP/1.1"),
        ("https://secure.example/done", "CONNECT secure.example:443 HTTP/1.1"),
    ] {
        submit(&operations, webhooks.check(url, &owner()).unwrap(), 0).await;
        let accepting = tokio::time::timeout(Duration::from_secs(10), listener.accept());
        let (mut stream, _) = accepting.await.unwrap().unwrap();
        let mut line = String::new();
        BufReader::new(&mut stream).read_line(&mut line).await.unwrap();
        assert_eq!(line.trim_end(), expected);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2, "no name but the proxy's is looked up");
}

#[test]
#[should_panic(expected = "an egress proxy of the scheme \"socks5\" is none")]
fn what_is_no_proxy_is_not_passed_over() {
    let _ = strict().egress_proxy("socks5://127.0.0.1:1".parse().unwrap());
}
