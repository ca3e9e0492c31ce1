//! Signatures, as [Standard Webhooks](https://www.standardwebhooks.com) has them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName};
use sha2::Sha256;

use crate::operation::RandomSourceError;
use crate::time::{Clock, SystemClock, Timestamp};

/// What a delivery is called: the same each time that it is tried.
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
/// When this try was made, in seconds since 1970.
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// The signatures, parted by spaces: one for each secret that is in use.
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How many signatures a verifier looks at.
const MAX_SIGNATURES: usize = 16;

/// What sender and receiver share. It shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// A secret that is too short, too long, or not of its form. What it was is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is 24 to 64 bytes, as text in base64 after whsec_")]
pub struct InvalidSecret(());

impl Secret {
    /// The shortest secret, in bytes.
    pub const MIN_BYTES: usize = 24;
    /// The longest secret, in bytes.
    pub const MAX_BYTES: usize = 64;
    const PREFIX: &str = "whsec_";

    /// A secret of those bytes.
    ///
    /// # Errors
    /// [`InvalidSecret`] if there are fewer than 24 or more than 64.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidSecret> {
        let bytes = bytes.into();
        let is_valid = (Self::MIN_BYTES..=Self::MAX_BYTES).contains(&bytes.len());
        if is_valid { Ok(Self(bytes)) } else { Err(InvalidSecret(())) }
    }

    /// A secret in its usual form: `whsec_` and base64.
    ///
    /// # Errors
    /// [`InvalidSecret`] if it is not of that form, or of another length.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let text = text.strip_prefix(Self::PREFIX).ok_or(InvalidSecret(()))?;
        Self::new(STANDARD.decode(text).map_err(|_| InvalidSecret(()))?)
    }

    /// A new secret of 32 random bytes. Show it to the receiver once, as [text](Self::to_text).
    ///
    /// # Errors
    /// [`RandomSourceError`] if the operating system gives no random bytes.
    pub fn generate() -> Result<Self, RandomSourceError> {
        let mut bytes = [0; 32];
        RandomSourceError::fill(&mut bytes)?;
        Ok(Self(bytes.to_vec()))
    }

    /// The secret in its usual form, `whsec_` and base64: what [`parse`](Self::parse) reads. It is the secret
    /// itself, so keep it out of logs.
    pub fn to_text(&self) -> String {
        format!("{}{}", Self::PREFIX, STANDARD.encode(&self.0))
    }

    fn mac(&self, id: &str, seconds: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
            mac.update(part);
        }
        Some(mac)
    }
}

/// As [`Secret::parse`].
impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        Self::parse(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The value of [`WEBHOOK_SIGNATURE`].
pub(super) fn sign(secrets: &[Secret], id: &str, seconds: &str, body: &[u8]) -> String {
    let signatures = secrets.iter().filter_map(|secret| {
        let mac = secret.mac(id, seconds, body)?.finalize().into_bytes();
        Some(format!("v1,{}", STANDARD.encode(mac)))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

/// The receiver's side: whether a call is of who shares a secret, and of now.
///
/// A call may come more than once. Keep the [`id`](Verified::id) of what was dealt with for as long as calls may be
/// repeated, at least for the [tolerance](Self::with_tolerance).
///
/// ```
/// use http::HeaderMap;
/// use respond_async::Timestamp;
/// use respond_async::webhook::{Secret, Verifier};
///
/// let verifier = Verifier::new([Secret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")?]);
/// let mut headers = HeaderMap::new();
/// headers.insert("webhook-id", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk".parse()?);
/// headers.insert("webhook-timestamp", "1649367553".parse()?);
/// headers.insert("webhook-signature", "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=".parse()?);
/// let then = Timestamp::from_unix_millis(1_649_367_553_000);
///
/// // Give it the body as it came, before it is parsed.
/// let body = br#"{"email":"test@example.com","username":"test_user"}"#;
/// assert_eq!(verifier.verify_at(&headers, body, then)?.id(), "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Verifier {
    secrets: Vec<Secret>,
    tolerance: Duration,
}

/// A call that is what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    id: String,
    sent: Timestamp,
}

impl Verified {
    /// What the delivery is called: the same if it comes again.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When this try of it was made.
    pub fn sent(&self) -> Timestamp {
        self.sent
    }
}

/// Why a call is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// One of the three fields is missing, comes twice, or is not of its form.
    #[error("the webhook's fields are missing or malformed")]
    Malformed,
    /// It was made too long ago, or is from the future.
    #[error("the webhook's timestamp is too far from now")]
    Stale,
    /// No signature is of a secret that is shared.
    #[error("the webhook's signature is of no secret that is shared")]
    Unsigned,
}

impl Verifier {
    /// The default of [`with_tolerance`](Self::with_tolerance).
    pub const DEFAULT_TOLERANCE: Duration = Duration::from_secs(300);

    /// Believes who knows one of the secrets.
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        Self { secrets: secrets.into_iter().collect(), tolerance: Self::DEFAULT_TOLERANCE }
    }

    /// How far from now a call's time may be, in both directions. The default is [5 min](Self::DEFAULT_TOLERANCE).
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Looks at a call that has just come, with its body as it came: as [`verify_at`](Self::verify_at), by the
    /// system's clock.
    ///
    /// # Errors
    /// [`VerifyError`] if it is not to be believed.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<Verified, VerifyError> {
        self.verify_at(headers, body, SystemClock.now())
    }

    /// Looks at a call that came at that time, with its body as it came.
    ///
    /// # Errors
    /// [`VerifyError`] if it is not to be believed.
    pub fn verify_at(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Verified, VerifyError> {
        let (id, seconds) = (field(headers, &WEBHOOK_ID)?, field(headers, &WEBHOOK_TIMESTAMP)?);
        let signatures = field(headers, &WEBHOOK_SIGNATURE)?;
        let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
        let sent = seconds.parse::<i64>().ok().filter(|_| is_number);
        let sent = sent.and_then(|seconds| seconds.checked_mul(1_000));
        let sent = sent.map(Timestamp::from_unix_millis).ok_or(VerifyError::Malformed)?;
        if sent.duration_since(now).max(now.duration_since(sent)) > self.tolerance {
            return Err(VerifyError::Stale);
        }
        let is_signed = signatures.split(' ').take(MAX_SIGNATURES).any(|signature| {
            let code = signature.strip_prefix("v1,").and_then(|code| STANDARD.decode(code).ok());
            // Compared in a time that tells nothing of where they differ.
            let is_of = |secret: &Secret, code: &[u8]| {
                secret.mac(id, seconds, body).is_some_and(|mac| mac.verify_slice(code).is_ok())
            };
            code.is_some_and(|code| self.secrets.iter().any(|secret| is_of(secret, &code)))
        });
        if is_signed {
            Ok(Verified { id: id.to_owned(), sent })
        } else {
            Err(VerifyError::Unsigned)
        }
    }
}

fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, VerifyError> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(VerifyError::Malformed);
    };
    value.to_str().map_err(|_| VerifyError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const BODY: &[u8] = br#"{"status":"succeeded"}"#;

    fn secret(byte: u8) -> Secret {
        Secret::new(vec![byte; 32]).unwrap()
    }

    fn call(secrets: &[Secret], seconds: i64) -> HeaderMap {
        let seconds = seconds.to_string();
        let mut headers = HeaderMap::new();
        headers.insert(WEBHOOK_SIGNATURE, sign(secrets, "id", &seconds, BODY).parse().unwrap());
        headers.insert(WEBHOOK_ID, "id".parse().unwrap());
        headers.insert(WEBHOOK_TIMESTAMP, seconds.parse().unwrap());
        headers
    }

    fn verify(
        secrets: &[Secret],
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Verified, VerifyError> {
        let now = Timestamp::from_unix_millis(NOW * 1_000);
        Verifier::new(secrets.to_vec()).verify_at(headers, body, now)
    }

    #[test]
    fn what_is_signed_is_believed() {
        let verified = verify(&[secret(1)], &call(&[secret(1)], NOW), BODY).unwrap();
        assert_eq!((verified.id(), verified.sent().as_unix_millis()), ("id", NOW * 1_000));
        // While one secret follows another, in whichever order both sides learn of it.
        for (sender, receiver, is_believed) in [
            (&[1, 2][..], &[1][..], true),
            (&[1, 2], &[2], true),
            (&[1], &[2, 1], true),
            (&[2], &[1], false),
            (&[], &[1], false),
            (&[1], &[], false),
        ] {
            let secrets = |bytes: &[u8]| bytes.iter().map(|&byte| secret(byte)).collect::<Vec<_>>();
            let verified = verify(&secrets(receiver), &call(&secrets(sender), NOW), BODY);
            assert_eq!(verified.is_ok(), is_believed, "{sender:?} {receiver:?}");
        }
    }

    #[test]
    fn what_is_changed_is_not() {
        let secrets = [secret(1)];
        let headers = call(&secrets, NOW);
        assert_eq!(verify(&secrets, &headers, b"{}"), Err(VerifyError::Unsigned));
        for (name, value, error) in [
            (WEBHOOK_ID, "other", VerifyError::Unsigned),
            (WEBHOOK_TIMESTAMP, "1800000001", VerifyError::Unsigned),
            (WEBHOOK_TIMESTAMP, "+1800000000", VerifyError::Malformed),
            (WEBHOOK_TIMESTAMP, "", VerifyError::Malformed),
            (WEBHOOK_TIMESTAMP, "9223372036854775807", VerifyError::Malformed),
            (WEBHOOK_SIGNATURE, "", VerifyError::Unsigned),
            (WEBHOOK_SIGNATURE, "v1,", VerifyError::Unsigned),
            (WEBHOOK_SIGNATURE, "v1,AAAA", VerifyError::Unsigned),
        ] {
            let mut headers = headers.clone();
            headers.insert(&name, value.parse().unwrap());
            assert_eq!(verify(&secrets, &headers, BODY), Err(error), "{name} {value}");
            headers.remove(&name);
            assert_eq!(verify(&secrets, &headers, BODY), Err(VerifyError::Malformed), "{name}");
            let mut twice = call(&secrets, NOW);
            twice.append(&name, twice[&name].clone());
            assert_eq!(verify(&secrets, &twice, BODY), Err(VerifyError::Malformed), "{name} twice");
        }
        let good = headers[WEBHOOK_SIGNATURE].to_str().unwrap();
        for (signatures, is_believed) in [
            (good.to_owned(), true),
            (good.replace("v1,", "v2,"), false),
            (good.replace("v1,", "v1a,"), false),
            (good[..good.len() - 4].to_owned(), false),
            (format!("v1,AAAA v9,x {good}"), true),
            ("v1,AAAA ".repeat(MAX_SIGNATURES - 1) + good, true),
            ("v1,AAAA ".repeat(MAX_SIGNATURES) + good, false),
        ] {
            let mut headers = headers.clone();
            headers.insert(WEBHOOK_SIGNATURE, signatures.parse().unwrap());
            assert_eq!(verify(&secrets, &headers, BODY).is_ok(), is_believed, "{signatures}");
        }
    }

    #[test]
    fn what_is_old_or_of_the_future_is_not() {
        for (apart, is_believed) in
            [(0, true), (300, true), (301, false), (-300, true), (-301, false)]
        {
            let verified = verify(&[secret(1)], &call(&[secret(1)], NOW + apart), BODY);
            assert_eq!(verified.err(), (!is_believed).then_some(VerifyError::Stale), "{apart}");
        }
    }

    #[test]
    fn a_new_secret_is_one_by_its_text_too() {
        let secret = Secret::generate().unwrap();
        assert_ne!(secret, Secret::generate().unwrap());
        let again: Secret = secret.to_text().parse().unwrap();
        let now = SystemClock.now().as_unix_millis() / 1_000;
        assert_eq!(Verifier::new([again]).verify(&call(&[secret], now), BODY).unwrap().id(), "id");
    }

    #[test]
    fn a_secret_has_a_length_and_shows_nothing() {
        for (length, is_valid) in [(0, false), (23, false), (24, true), (64, true), (65, false)] {
            let bytes = vec![7; length];
            let text = format!("whsec_{}", STANDARD.encode(&bytes));
            assert_eq!(Secret::new(bytes).is_ok(), is_valid, "{length}");
            assert_eq!(Secret::parse(&text).is_ok(), is_valid, "{length}");
            assert!(Secret::parse(&text[6..]).is_err());
        }
        assert!(Secret::parse("whsec_!!").is_err());
        assert_eq!(
            format!("{:?}", Verifier::new([secret(b'x')])),
            "Verifier { secrets: [Secret], tolerance: 300s }"
        );
    }
}
