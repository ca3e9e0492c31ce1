use http_body_util::BodyExt;
use respond_async::Owner;
use respond_async::prefer::Preferences;
use respond_async::problem::types;
use respond_async::respond::Response;
use respond_async::webhook::Webhooks;

use crate::receiver::{Receiver, answer};
use crate::{Work, local, operations, owner, secret};

fn prefer(text: &str) -> Preferences {
    Preferences::parse(text.as_bytes()).unwrap()
}

/// The answer, with what the body says.
async fn respond(webhooks: &Webhooks, text: &str) -> (u16, String, String) {
    let operations = operations(webhooks).start();
    let preferences = prefer(text);
    let kicked_off = webhooks.preferred(&preferences, &owner()).map(|callback| {
        operations.kick_off(&preferences).owner(owner()).callback(callback).strict(&[])
    });
    let response: Response = match kicked_off {
        Ok(kick_off) => kick_off.respond(Work(0)).await,
        Err(problem) => problem.into_response(),
    };
    let applied = response.headers().get("preference-applied");
    let applied = applied.map_or(String::new(), |applied| applied.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, applied, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_client_says_where() {
    let receiver = Receiver::start(|_| answer(200)).await;
    let webhooks = local().build().unwrap();
    let url = receiver.url("/");
    for (text, status, applied) in [
        (format!("respond-async, callback; url=\"{url}\""), 202, "respond-async, callback"),
        (
            format!("respond-async, Odata.Callback;url=\"{url}\""),
            202,
            "respond-async, odata.callback",
        ),
        (
            format!("respond-async, callback; url=\"{url}\", handling=strict"),
            202,
            "respond-async, callback",
        ),
        // An answer at once is told to nobody else.
        (format!("callback; url=\"{url}\""), 200, ""),
        ("respond-async".to_owned(), 202, "respond-async"),
    ] {
        let (answered, with, _) = respond(&webhooks, &text).await;
        assert_eq!((answered, &*with), (status, applied), "{text}");
    }
}

#[tokio::test]
async fn what_may_not_be_called_is_refused_at_once() {
    let webhooks = Webhooks::builder(|_: &Owner| vec![secret()])
        .allow(|url, owner| url.path() != "/not" || owner.name() != Some("ann"))
        .build()
        .unwrap();
    for (text, told) in [
        ("respond-async, callback", "needs a parameter"),
        ("respond-async, callback=\"https://a.example\"", "needs a parameter"),
        ("respond-async, callback; url", "needs a parameter"),
        ("respond-async, callback; url=\"http://a.example/\"", "https://"),
        ("respond-async, callback; url=\"https://127.0.0.1/\"", "host"),
        ("respond-async, callback; url=\"https://u:p@a.example/\"", "user name"),
        ("respond-async, callback; url=\"https://a.example:22/\"", "port"),
        ("respond-async, callback; url=\"not a url\"", "cannot be read"),
        ("respond-async, callback; url=\"https://a.example/not\"", "host"),
    ] {
        let (status, _, body) = respond(&webhooks, text).await;
        assert_eq!(status, 400, "{text}");
        assert!(body.contains("callback-refused") && body.contains(told), "{text}: {body}");
    }
    let long = format!("https://a.example/{}", "x".repeat(2_048));
    let problem = webhooks.check(&long, &owner()).unwrap_err();
    assert!(problem.is(types::CALLBACK_REFUSED) && problem.detail().unwrap().contains("2048"));
    let read = webhooks.check("https://B\u{fc}cher.example:443/\u{e4}?q=\u{f6}", &owner()).unwrap();
    assert_eq!(read.url(), "https://xn--bcher-kva.example/%C3%A4?q=%C3%B6");
}

/// A call that is not signed is never made, and who was told that it would be has a right to it.
#[tokio::test]
async fn an_owner_without_secrets_is_told_so() {
    let webhooks = Webhooks::builder(|owner: &Owner| match owner.name() {
        Some("ann") => Vec::new(),
        _ => vec![secret()],
    });
    let webhooks = webhooks.build().unwrap();
    let text = "respond-async, callback; url=\"https://a.example/\"";
    let (status, applied, body) = respond(&webhooks, text).await;
    assert_eq!((status, &*applied), (400, ""));
    assert!(body.contains("callback-refused") && body.contains("secret"), "{body}");
    assert!(webhooks.preferred(&prefer(text), &Owner::new("bob").unwrap()).unwrap().is_some());
}
