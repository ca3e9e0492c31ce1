//! Against another's code for the same signatures, in both directions.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use respond_async::Timestamp;
use respond_async::time::{Clock, SystemClock};
use respond_async::webhook::Verifier;
use standardwebhooks::Webhook;

use crate::receiver::{Receiver, answer};
use crate::{local, operations, owner, secret, settled, submit};

fn theirs() -> Webhook {
    Webhook::new(&STANDARD.encode("canary-canary-canary-canary-")).unwrap()
}

#[test]
fn what_they_sign_is_believed() {
    let now = SystemClock.now();
    for body in ["", "{}", "{\"a\":\"\u{e4}\"}", &"x".repeat(100_000)] {
        let seconds = now.as_unix_millis() / 1_000;
        let signature = theirs().sign("msg_1", seconds, body.as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "msg_1".parse().unwrap());
        headers.insert("webhook-timestamp", seconds.into());
        headers.insert("webhook-signature", signature.parse().unwrap());
        let verified = Verifier::new([secret()]).verify_at(&headers, body.as_bytes(), now).unwrap();
        assert_eq!(verified.sent(), Timestamp::from_unix_millis(seconds * 1_000));
    }
}

#[tokio::test]
async fn they_believe_what_is_sent() {
    let receiver = Receiver::start(|_| answer(200)).await;
    let webhooks = local().build().unwrap();
    let operations = operations(&webhooks).start();
    let callback = webhooks.check(&receiver.url("/"), &owner()).unwrap();
    let id = submit(&operations, callback, 0).await;
    settled(&operations, id).await;
    let call = receiver.calls().pop().unwrap();
    theirs().verify(&call.raw, &call.headers).unwrap();
    assert!(theirs().verify(b"{}", &call.headers).is_err());
}
