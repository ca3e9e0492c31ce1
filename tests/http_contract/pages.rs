//! Pages for people.

use std::time::Duration;

use http::{Method, StatusCode};
use respond_async::header::EntityTag;
use respond_async::operation::Change;
use respond_async::store::OperationStoreExt;
use respond_async::{Owner, Progress};
use tokio::time::{Instant, sleep};

use super::{Answer, Service};

/// What a browser sends when somebody follows a link.
const BROWSER: (&str, &str) =
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8");
const ANN: (&str, &str) = ("owner", "ann");

impl Service {
    async fn page(&self, uri: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, uri, &[fields, &[BROWSER]].concat()).await
    }
}

/// The page, of which nothing may come from elsewhere.
#[track_caller]
fn text(answer: &Answer, status: u16) -> &str {
    assert_eq!(
        (answer.status.as_u16(), answer.field("content-type")),
        (status, "text/html; charset=utf-8")
    );
    let policy = answer.field("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!(answer.field("referrer-policy"), "same-origin");
    assert_eq!(answer.field("x-content-type-options"), "nosniff");
    assert_eq!(answer.field("vary"), "Accept, Prefer");
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert!(text.starts_with("<!doctype html>\n<html lang=\"en\">") && text.ends_with("</html>\n"));
    for outside in ["src=", "http://", "https://", "url(", "@import", " style=", " onclick="] {
        assert!(!text.contains(outside), "{outside}");
    }
    text
}

async fn a_monitor_is_a_page_for_people() {
    let service = Service::new();
    let monitor = service.post("thing5", "respond-async").await.monitor();
    sleep(Duration::from_millis(1)).await;
    let live = service.page(&monitor, &[]).await;
    let page = text(&live, 200);
    for part in [
        "<title>task: Running</title>",
        "role=\"status\"",
        "max=\"1\" aria-label=\"Progress\" value=\"0.25\">25 %</progress>",
        ">working</span>",
        "<noscript><meta http-equiv=\"refresh\" content=\"",
        "datetime=\"2026-11-23T05:54:39.000Z\">2026-11-23 05:54:39 UTC</time>",
        &format!("<form data-is=\"cancel\" method=\"post\" action=\"{monitor}/cancel\">"),
        "<script>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_eq!(live.field("cache-control"), "no-cache, private");

    sleep(Duration::from_secs(5)).await;
    let ended = service.page(&monitor, &[]).await;
    let page = text(&ended, 200);
    assert!(page.contains("<title>task: Done</title>"));
    assert!(page.contains(&format!("href=\"{monitor}/result\">Result</a>")));
    assert!(page.contains("href=\"/things/17\">What was made</a>"));
    assert!(page.contains("<form data-is=\"cancel\" method=\"post\" hidden"));
    assert!(!page.contains("refresh") && !page.contains("<script>"));
    assert_eq!(ended.field("cache-control"), "private, max-age=3600");
}

async fn each_form_has_a_tag_of_its_own() {
    let service = Service::new();
    let monitor = service.post("ignore", "respond-async").await.monitor();
    sleep(Duration::from_millis(1)).await;
    let page = service.page(&monitor, &[]).await.field("etag").to_owned();
    let json = service.get(&monitor).await.field("etag").to_owned();
    assert_ne!(page, json);
    for (tag, accept, status) in [
        (&page, BROWSER.1, StatusCode::NOT_MODIFIED),
        (&json, BROWSER.1, StatusCode::OK),
        (&page, "application/json", StatusCode::OK),
        (&json, "application/json", StatusCode::NOT_MODIFIED),
    ] {
        let fields = [("accept", accept), ("if-none-match", tag)];
        let answer = service.send(Method::GET, &monitor, &fields).await;
        assert_eq!((answer.status, answer.body.is_empty()), (status, status == 304));
        assert_eq!(answer.field("vary"), "Accept, Prefer");
    }
    let start = Instant::now();
    let held = [("prefer", "wait=3"), ("if-none-match", &*page)];
    assert_eq!(service.page(&monitor, &held).await.status, StatusCode::NOT_MODIFIED);
    assert_eq!(start.elapsed().as_secs(), 3);
    let tag = EntityTag::new(page.trim_matches('"')).unwrap();
    assert_eq!(tag.to_header_value(), page);
}

async fn whatever_a_text_says_it_is_text() {
    let service = Service::new();
    let monitor = service.post("ignore", "respond-async").await.monitor();
    sleep(Duration::from_millis(1)).await;
    let id = monitor.rsplit('/').next().unwrap().parse().unwrap();
    let evil = "</span><script>alert(1)</script>\"'&";
    let change = Change::Progress { attempt: 1, progress: Progress::new(0.5, evil) };
    service.store.apply(id, change).await.unwrap();
    let page = service.page(&monitor, &[]).await;
    let page = text(&page, 200);
    assert!(page.contains("&lt;/span&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"));
    assert!(!page.contains("<script>alert"));

    let failed = service.post("fail", "respond-async").await.monitor();
    service.ended(&failed).await;
    let failed = service.page(&failed, &[]).await;
    let page = text(&failed, 200);
    assert!(page.contains("<strong data-is=\"title\">Internal error</strong>"), "{page}");
    assert!(page.contains("<span data-is=\"detail\">no luck</span>"));
}

async fn a_list_is_a_page_for_people() {
    let service = Service::new();
    let none = service.page("/operations", &[ANN]).await;
    assert!(text(&none, 200).contains("<p data-is=\"none\">There are none.</p>"));
    for what in ["thing0", "fail", "thing5"] {
        let fields = [ANN, ("prefer", "respond-async")];
        service.send(Method::POST, &format!("/tasks/{what}"), &fields).await.monitor();
        service.clock.advance(Duration::from_millis(1));
        sleep(Duration::from_millis(1)).await;
    }
    let all = service.page("/operations", &[ANN]).await;
    let page = text(&all, 200);
    assert_eq!(page.matches("<tr id=").count(), 3);
    let place = |word: &str| page.find(word).unwrap();
    assert!(place(">Running<") < place(">Failed<") && place(">Failed<") < place(">Done<"));
    assert!(page.contains("<template><tr>") && page.contains("<script>"));
    let first = service.page("/operations?limit=2", &[ANN]).await;
    let link = first.field("link");
    let next = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    assert!(text(&first, 200).contains(&next.replace('&', "&amp;")));
    let second = service.page(&next, &[ANN]).await;
    // New ones do not belong there.
    assert!(!text(&second, 200).contains("<template>"));
}

async fn a_problem_is_told_in_words() {
    let service = Service::new();
    let unknown = "/operations/01932f0e-7a5b-7c3d-9e1f-0123456789ab";
    let gone = service.page(unknown, &[]).await;
    assert!(text(&gone, 410).contains("<h1>Expired</h1>"));
    let own = service.send(Method::POST, "/tasks/thing5", &[ANN, ("prefer", "respond-async")]);
    let own = own.await.monitor();
    let foreign = service.page(&own, &[("owner", "bob")]).await;
    assert!(text(&foreign, 404).contains("<h1>Not found</h1>"));
    assert_eq!(foreign.field("cache-control"), "no-store");
    assert!(text(&service.page("/operations", &[]).await, 404).contains("whose name the service"));
}

async fn a_problem_as_a_page_says_when_to_come_again() {
    let service = Service::with(|builder| builder.owner_poll_rate(1));
    let monitor = service.post("thing5", "respond-async").await.monitor();
    for _ in 0..10 {
        text(&service.page(&monitor, &[]).await, 200);
    }
    let refused = service.page(&monitor, &[]).await;
    text(&refused, 429);
    assert!(refused.field("retry-after").parse::<u32>().unwrap() >= 1);
}

async fn a_button_that_is_not_heeded_leads_back() {
    let service = Service::with(|builder| builder.owner_poll_rate(1));
    let monitor = service.post("thing5", "respond-async").await.monitor();
    for _ in 0..10 {
        text(&service.page(&monitor, &[]).await, 200);
    }
    let fields = [("sec-fetch-site", "same-origin"), BROWSER];
    let refused = service.send(Method::POST, &format!("{monitor}/cancel"), &fields).await;
    let page = text(&refused, 429);
    // A browser asks with GET, which is not known there.
    let seconds = refused.field("retry-after");
    let refresh = format!("<meta http-equiv=\"refresh\" content=\"{seconds}; url={monitor}\">");
    assert!(page.contains(&refresh), "{page}");
    assert!(page.contains(&format!("<a href=\"{monitor}\">Back to the operation</a>")), "{page}");
    // To one that is not there nothing leads back.
    let other = Service::new().send(Method::POST, &format!("{monitor}/cancel"), &fields).await;
    assert!(!text(&other, 404).contains("<a "));
}

async fn only_a_page_of_the_same_origin_can_cancel() {
    let service = Service::new();
    let monitor = service.post("stop", "respond-async").await.monitor();
    let cancel = format!("{monitor}/cancel");
    let host = ("host", "images.example");
    for fields in [
        &[][..],
        &[host],
        &[("sec-fetch-site", "cross-site"), ("origin", "https://images.example"), host],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example"), host],
        &[("origin", "null"), host],
    ] {
        let refused = service.send(Method::POST, &cancel, fields).await;
        refused.is_problem(403, "cross-site");
        assert_eq!(service.get(&monitor).await.json()["cancel_requested"], serde_json::Value::Null);
    }
    let others = service.send(Method::POST, "/tasks/stop", &[ANN, ("prefer", "respond-async")]);
    let others = format!("{}/cancel", others.await.monitor());
    let same = ("sec-fetch-site", "same-origin");
    service.send(Method::POST, &others, &[same]).await.is_problem(404, "not-found");
    let get = service.send(Method::GET, &cancel, &[same]).await;
    get.is_problem(405, "method-not-allowed");
    assert_eq!(get.field("allow"), "POST");

    let done = service.send(Method::POST, &cancel, &[same, BROWSER]).await;
    assert_eq!((done.status, done.field("location")), (StatusCode::SEE_OTHER, &*monitor));
    assert_eq!(done.field("cache-control"), "no-store");
    assert_eq!(service.ended(&monitor).await.json()["status"], "canceled");
    // Whoever presses it too late sees how it ended.
    let older = [("origin", "http://images.example"), host];
    let late = service.send(Method::POST, &cancel, &older).await;
    assert_eq!(late.status, StatusCode::SEE_OTHER);
    assert!(
        service
            .store
            .find(&Owner::anonymous(), monitor.rsplit('/').next().unwrap().parse().unwrap())
            .await
            .unwrap()
            .is_some()
    );
}

contract! {
    a_monitor_is_a_page_for_people
    each_form_has_a_tag_of_its_own
    whatever_a_text_says_it_is_text
    a_list_is_a_page_for_people
    a_problem_is_told_in_words
    a_problem_as_a_page_says_when_to_come_again
    a_button_that_is_not_heeded_leads_back
    only_a_page_of_the_same_origin_can_cancel
}
