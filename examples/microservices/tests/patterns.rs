//! The five patterns, and what goes wrong in each, over sockets and a RabbitMQ of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "../../../tests/servers/mod.rs"]
mod servers;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use microservices::gateway::Gateway;
use microservices::messages::{User, UserEvent};
use microservices::users::UserService;
use reqwest::{Client, RequestBuilder};
use respond_async::amqp::Amqp;
use serde_json::{Value, json};
use servers::{Server, Sort};
use tempfile::TempDir;
use tokio::time::sleep;

/// A gateway, the service behind it, and their broker.
struct System {
    folder: TempDir,
    broker: Option<Server>,
    address: SocketAddr,
    client: Client,
    _gateway: Gateway,
    users: UserService,
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{} {}", self.status, self.body))
    }

    fn field(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let value = value.unwrap_or_else(|| panic!("no {name}: {} {}", self.status, self.body));
        value.to_str().unwrap()
    }
}

impl System {
    async fn start() -> Self {
        let broker = tokio::task::spawn_blocking(|| Server::start(Sort::RabbitMq)).await.unwrap();
        let folder = TempDir::new().unwrap();
        let amqp = Amqp::connect(&broker.url()).unwrap();
        let users = UserService::start(&amqp, &folder.path().join("users.db")).unwrap();
        let gateway = Gateway::start(&amqp, &folder.path().join("gateway")).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = gateway.router();
        tokio::spawn(async { axum::serve(listener, router).await });
        let client = Client::builder().no_proxy().build().unwrap();
        let broker = Some(broker);
        let system = Self { folder, broker, address, client, _gateway: gateway, users };
        system.users.ready().await;
        // The gateway's connection is there soon.
        system.until(|| system.get("/users"), |answer| answer.status == 200).await;
        system
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    fn post(&self, name: &str) -> RequestBuilder {
        let user = json!({"name": name, "email": format!("{name}@example.com")});
        self.client.post(format!("http://{}/users", self.address)).json(&user)
    }

    async fn until(
        &self,
        request: impl Fn() -> RequestBuilder,
        is_so: impl Fn(&Answer) -> bool,
    ) -> Answer {
        for _ in 0..600 {
            let answer = send(request()).await;
            if is_so(&answer) {
                return answer;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not come to be");
    }

    /// Follows an operation that was accepted to its end.
    async fn ended(&self, accepted: &Answer) -> Value {
        assert_eq!(accepted.status, 202, "{}", accepted.body);
        let monitor = accepted.field("content-location").to_owned();
        let is_over = |answer: &Answer| {
            !["pending", "running"].map(Value::from).contains(&answer.json()["status"])
        };
        self.until(|| self.get(&monitor), is_over).await.json()
    }

    async fn with_broker(&mut self, act: impl FnOnce(&mut Server) + Send + 'static) {
        let mut broker = self.broker.take().unwrap();
        let acting = tokio::task::spawn_blocking(move || {
            act(&mut broker);
            broker
        });
        self.broker = Some(acting.await.unwrap());
    }
}

async fn send(request: RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    Answer { status, headers, body: answer.text().await.unwrap() }
}

const ASYNC: (&str, &str) = ("prefer", "respond-async");

/// Whatever is wrong is a problem, and says what the answer depends on.
#[tokio::test]
async fn what_is_wrong_is_a_problem() {
    let folder = TempDir::new().unwrap();
    let gateway = Gateway::start(&Amqp::connect("amqp://127.0.0.1:1").unwrap(), folder.path());
    let router = gateway.unwrap().router();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await });
    let client = Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("http://{address}{path}");
    let users = || client.post(url("/users"));
    for (request, status, varies) in [
        (users().header("x-user", "no\tname"), 400, true),
        (users().header("x-user", "no\tname").header(ASYNC.0, ASYNC.1), 400, true),
        (users().body("x".repeat((2 << 20) + 1)), 413, true),
        (client.put(url("/users/1")).body("x".repeat((2 << 20) + 1)), 413, true),
        (client.delete(url("/users")), 405, true),
        (client.get(url("/users/%ff")), 404, true),
        (client.get(url("/users/none")), 404, true),
        (client.get(url("/model/users/%ff")), 404, false),
        (client.get(url("/cached/users/%ff")), 404, false),
        (client.delete(url("/model/users")), 405, false),
        (client.get(url("/elsewhere")), 404, false),
    ] {
        let answer = send(request).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_eq!(answer.field("content-type"), "application/problem+json", "{}", answer.body);
        assert_eq!(answer.headers.get("vary").is_some_and(|vary| vary == "Prefer"), varies);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn five_ways_to_the_same_users() {
    let system = System::start().await;
    let created = send(system.post("ann")).await;
    assert_eq!((created.status, created.field("location")), (StatusCode::CREATED, "/users/1"));
    let ann = json!({"id": 1, "name": "ann", "email": "ann@example.com", "version": 1});
    assert_eq!(created.json(), ann);

    let accepted = send(system.post("bob").header(ASYNC.0, ASYNC.1)).await;
    assert_eq!(accepted.field("preference-applied"), "respond-async");
    let ended = system.ended(&accepted).await;
    assert_eq!(
        (&ended["status"], &ended["result"]["location"]),
        (&"succeeded".into(), &"/users/2".into())
    );
    let result = send(system.get(ended["links"]["result"].as_str().unwrap())).await;
    assert_eq!((result.status, &result.json()["name"]), (StatusCode::CREATED, &"bob".into()));

    assert_eq!(send(system.get("/users/1")).await.json(), ann);
    let model = send(system.get("/model/users/1?position=1").header("prefer", "wait=5")).await;
    assert_eq!(model.json(), ann);
    assert!(model.headers.contains_key("age") && model.headers.contains_key("last-modified"));
    assert_eq!(send(system.get("/cached/users/1")).await.json(), ann);
    assert!(send(system.get("/cached/users/1")).await.field("cache-status").ends_with("hit"));
    assert_eq!(send(system.get("/snapshot/users/1")).await.json(), ann);
    for list in ["/users", "/snapshot/users"] {
        assert_eq!(send(system.get(list)).await.json().as_array().unwrap().len(), 2, "{list}");
    }
    let page = send(system.get("/users?after=1&limit=1")).await.json();
    assert_eq!(page[0]["name"], "bob");

    // A change is seen by all, the cache last; who made it sees it by its link.
    let change = json!({"name": "anna", "email": "anna@example.com"});
    let put = system.client.put(format!("http://{}/users/1", system.address)).json(&change);
    let changed = send(put).await;
    assert_eq!((changed.status, &changed.json()["version"]), (StatusCode::OK, &2.into()));
    let link = changed.field("link");
    let link = &link[1..link.find('>').unwrap()];
    let seen = send(system.get(link).header("prefer", "wait=5")).await;
    assert_eq!(seen.json()["name"], "anna");
    assert_eq!(send(system.get("/snapshot/users/1")).await.json()["name"], "anna");
    let is_new = |answer: &Answer| answer.json()["name"] == "anna";
    system.until(|| system.get("/cached/users/1"), is_new).await;
    for path in ["/users/9", "/model/users/9", "/cached/users/9", "/snapshot/users/9", "/users/x"] {
        assert_eq!(send(system.get(path)).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn everybody_reads_what_he_wrote() {
    let system = System::start().await;
    for number in 0..100 {
        let created = send(system.post(&format!("user{number}"))).await;
        let link = created.field("link");
        let link = &link[1..link.find('>').unwrap()];
        let read = send(system.get(link).header("prefer", "wait=5")).await;
        assert_eq!(read.json(), created.json());
    }
    let far = send(system.get("/model/users/1?position=1000")).await;
    assert_eq!(far.status, 503);
    assert!(far.json()["type"].as_str().unwrap().ends_with(":not-caught-up"));
    assert_eq!(far.field("retry-after"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn errors_reach_the_client_whenever_they_happen() {
    let system = System::start().await;
    assert_eq!(send(system.post("ann")).await.status, 201);
    let other = json!({"name": "ann", "email": "other@example.com"});
    let taken = send(system.post("").json(&other)).await;
    assert_eq!((taken.status, &taken.json()["field"]), (StatusCode::CONFLICT, &"name".into()));
    assert_eq!(taken.field("content-type"), "application/problem+json");
    let late = system.ended(&send(system.post("ann").header(ASYNC.0, ASYNC.1)).await).await;
    assert_eq!((&late["status"], &late["error"]["field"]), (&"failed".into(), &"email".into()));
    assert_eq!(late["error"]["status"], 409);
    // Refused by the gateway, whatever it prefers.
    for body in [json!({"name": "x", "email": "x"}), json!({"name": " ", "email": "a@b.c"})] {
        let request = system.post("").json(&body).header(ASYNC.0, ASYNC.1);
        let refused = send(request).await;
        assert_eq!((refused.status.as_u16(), refused.field("vary")), (422, "Prefer"), "{body}");
    }
    for body in [json!({}), json!([]), json!({"name": 1, "email": "a@b.c"})] {
        let refused = send(system.post("").json(&body)).await;
        assert_eq!((refused.status.as_u16(), refused.field("vary")), (400, "Prefer"), "{body}");
    }
    let refused = send(system.get("/model/users?position=x")).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.field("content-type"), "application/problem+json");

    // A key is its owner's.
    let named = |user: &str, name: &str| {
        system.post(name).header("x-user", user).header("idempotency-key", "one")
    };
    let made = send(named("ann", "eve")).await;
    assert_eq!(
        (made.status, send(named("bob", "fay")).await.status),
        (StatusCode::CREATED, StatusCode::CREATED)
    );
    let accepted = send(system.post("gus").header("x-user", "ann").header(ASYNC.0, ASYNC.1)).await;
    let monitor = accepted.field("content-location");
    assert_eq!(send(system.get(monitor)).await.status, 404, "another's");
    assert_eq!(send(system.get(monitor).header("x-user", "ann")).await.status, 200);

    // Somebody else holds the database: 503 now, and done once it is free again.
    let lock =
        rusqlite::Connection::open(Path::new(system.folder.path()).join("users.db")).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let refused = send(system.post("bob")).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.headers.contains_key("retry-after") && !refused.body.contains("lock"));
    let accepted = send(system.post("carl").header(ASYNC.0, ASYNC.1)).await;
    sleep(Duration::from_secs(2)).await;
    lock.execute_batch("ROLLBACK").unwrap();
    let ended = system.ended(&accepted).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert!(ended["attempt"].as_u64().unwrap() > 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn without_a_broker_what_can_be_answered_is_and_nothing_is_lost() {
    let mut system = System::start().await;
    let created = send(system.post("ann")).await;
    assert_eq!(created.status, 201);
    let model = |answer: &Answer| answer.status == 200;
    system.until(|| system.get("/model/users/1"), model).await;
    assert_eq!(send(system.get("/cached/users/1")).await.status, 200);
    system.with_broker(Server::restart).await;
    system.until(|| system.get("/users"), |answer| answer.status == 200).await;
    system.with_broker(Server::kill).await;

    let is_known = |answer: &Answer| answer.status == 503;
    let refused = system.until(|| system.post("bob"), is_known).await;
    assert!(refused.json()["type"].as_str().unwrap().ends_with(":broker-unavailable"));
    assert!(refused.headers.contains_key("retry-after"));
    let bad = send(system.post("").json(&json!({"name": "x", "email": "x"}))).await;
    assert_eq!(bad.status, 422, "what can be refused is refused as ever");
    assert_eq!(send(system.get("/model/users/1")).await.status, 200);
    // The service lets it be used while itself cannot be asked.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(send(system.get("/cached/users/1")).await.status, 200);
    let accepted = send(system.post("carl").header(ASYNC.0, ASYNC.1)).await;
    assert_eq!(accepted.status, 202);

    system.with_broker(Server::start_again).await;
    let ended = system.ended(&accepted).await;
    assert_eq!((&ended["status"], &ended["attempt"]), (&"succeeded".into(), &1.into()));
    let created = system.until(|| system.post("dora"), |answer| answer.status == 201).await;
    let link = created.field("link");
    let link = &link[1..link.find('>').unwrap()];
    let read = send(system.get(link).header("prefer", "wait=10")).await;
    assert_eq!(read.json(), created.json());
}

/// It would hold up all that come after it.
#[tokio::test]
#[ignore = "needs RabbitMQ: run ./tests/all"]
async fn an_event_that_is_too_large_is_left_out() {
    let broker = tokio::task::spawn_blocking(|| Server::start(Sort::RabbitMq)).await.unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("users.db");
    let database = rusqlite::Connection::open(&file).unwrap();
    let events = "CREATE TABLE events (
        position INTEGER PRIMARY KEY, millis INTEGER NOT NULL, event TEXT NOT NULL)";
    database.execute(events, []).unwrap();
    for (position, length) in [(1_u32, 3), (2, 2_000), (3, 3)] {
        let user = User {
            id: position.into(),
            name: "x".repeat(length),
            email: "x@example.com".to_owned(),
            version: 1,
        };
        let event = json!(UserEvent::UserCreated(user)).to_string();
        database.execute("INSERT INTO events VALUES (?, 0, ?)", (position, event)).unwrap();
    }
    let amqp = Amqp::connect(&broker.url()).unwrap().with_max_message_bytes(1_000);
    let _users = UserService::start(&amqp, &file).unwrap();
    let published = || database.query_row("SELECT position FROM published", [], |row| row.get(0));
    for _ in 0..600 {
        if published() == Ok(3_i64) {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("{:?}", published());
}
