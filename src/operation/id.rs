use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::time::Timestamp;

/// The name of an operation, as it stands in its URL.
///
/// A UUID of version 7 ([RFC 9562 §5.7](https://www.rfc-editor.org/rfc/rfc9562#section-5.7)): 48 bits
/// of milliseconds, then 74 bits from the operating system's generator. There is no counter in it,
/// so one id says nothing about another. The time lets stores keep new operations together and lets
/// an id that is no longer known be recognised as expired.
///
/// ```
/// use respond_async::OperationId;
///
/// let id: OperationId = "01932f0e-7a5b-7c3d-9e1f-0123456789ab".parse()?;
/// assert_eq!(id.to_string(), "01932f0e-7a5b-7c3d-9e1f-0123456789ab");
/// assert_eq!(id.timestamp().to_string(), "2024-11-15T09:01:38.267Z");
/// # Ok::<(), respond_async::operation::InvalidOperationId>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(Uuid);

/// A text that is no operation id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an operation id")]
pub struct InvalidOperationId(());

/// The operating system gave no random bytes. There is no weaker source to fall back to.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the operating system's random number generator failed")]
pub struct RandomSourceError(#[source] getrandom::Error);

impl RandomSourceError {
    /// Fills that with random bytes.
    pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), Self> {
        getrandom::fill(bytes).map_err(Self)
    }
}

impl OperationId {
    /// A new id, made at `now`.
    ///
    /// # Errors
    /// [`RandomSourceError`] if the operating system gives no random bytes.
    pub fn generate(now: Timestamp) -> Result<Self, RandomSourceError> {
        let mut random = [0; 10];
        RandomSourceError::fill(&mut random)?;
        Ok(Self::from_parts(now, random))
    }

    /// The id of that instant and those random bits; six of the eighty give way to the version and
    /// the variant. Instants before 1970 count as 1970.
    pub fn from_parts(now: Timestamp, random: [u8; 10]) -> Self {
        let millis = u64::try_from(now.as_unix_millis()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The id that a digest gives for that instant: whoever digests the same names the same.
    #[cfg(feature = "tokio")]
    pub(crate) fn of_digest(now: Timestamp, digest: &[u8; 32]) -> Self {
        let mut random = [0; 10];
        random.copy_from_slice(&digest[..10]);
        Self::from_parts(now, random)
    }

    /// The instant at which the id was made.
    pub fn timestamp(&self) -> Timestamp {
        let millis = self.0.as_u128() >> 80;
        Timestamp::from_unix_millis(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    /// The id as a UUID.
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl TryFrom<Uuid> for OperationId {
    type Error = InvalidOperationId;

    /// Takes a UUID of version 7 and the variant of RFC 9562, no other.
    fn try_from(uuid: Uuid) -> Result<Self, InvalidOperationId> {
        if uuid.get_version_num() == 7 && uuid.get_variant() == uuid::Variant::RFC4122 {
            Ok(Self(uuid))
        } else {
            Err(InvalidOperationId(()))
        }
    }
}

impl FromStr for OperationId {
    type Err = InvalidOperationId;

    /// Reads the hyphenated form in lower case, the one that [`Display`](fmt::Display) writes: an
    /// operation has one URL, not several.
    fn from_str(text: &str) -> Result<Self, InvalidOperationId> {
        if text.len() != 36 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(InvalidOperationId(()));
        }
        Uuid::try_parse(text).map_err(|_| InvalidOperationId(()))?.try_into()
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for OperationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OperationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn carries_its_time_and_nothing_else_that_repeats() {
        let now: Timestamp = "2026-11-23T05:54:39.123Z".parse().unwrap();
        let ids: Vec<_> = (0..10_000).map(|_| OperationId::generate(now).unwrap()).collect();
        assert!(ids.iter().all(|id| id.timestamp() == now));
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        // Each of the 74 random bits is set about as often as not: 5,000 times, give or take 10 σ.
        let fixed = OperationId::from_parts(now, [0; 10]).0.as_u128();
        let free = OperationId::from_parts(now, [0xFF; 10]).0.as_u128() ^ fixed;
        assert_eq!(free.count_ones(), 74);
        for bit in (0..128).filter(|bit| free >> bit & 1 == 1) {
            let set = ids.iter().filter(|id| id.0.as_u128() >> bit & 1 == 1).count();
            assert!((4_500..5_500).contains(&set), "bit {bit} was set {set} times of 10,000");
        }
    }

    #[test]
    fn orders_by_time() {
        let now = Timestamp::from_unix_millis(1_000);
        let later = Timestamp::from_unix_millis(1_001);
        assert!(OperationId::from_parts(now, [0xFF; 10]) < OperationId::from_parts(later, [0; 10]));
        let before = OperationId::from_parts(Timestamp::MIN, [0; 10]);
        assert_eq!(before.timestamp(), Timestamp::from_unix_millis(0));
    }

    #[test]
    fn reads_only_what_it_writes() {
        let id = OperationId::generate(Timestamp::from_unix_millis(1)).unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in [
            "",
            "01932F0E-7A5B-7C3D-9E1F-0123456789AB",
            "01932f0e7a5b7c3d9e1f0123456789ab",
            "{01932f0e-7a5b-7c3d-9e1f-0123456789ab}",
            "urn:uuid:01932f0e-7a5b-7c3d-9e1f-0123456789ab",
            "01932f0e-7a5b-4c3d-9e1f-0123456789ab",
            "01932f0e-7a5b-7c3d-0e1f-0123456789ab",
            "01932f0e-7a5b-7c3d-9e1f-0123456789a",
            "../../../../../../../../etc/passwd--",
        ] {
            assert!(wrong.parse::<OperationId>().is_err(), "{wrong}");
        }
    }
}
