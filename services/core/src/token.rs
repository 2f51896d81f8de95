//! Session tokens: what a client has seen, so that any region can keep its promises to it.
//!
//! A token is a vector, not one clock value: that the clock has passed says nothing about whether one particular write
//! has arrived. It is authenticated, because its version is admitted into the clock of the region that takes the next
//! write; a client could otherwise push the clocks of all regions into the future.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::ids::{Dot, Epoch, Timeline};
use crate::limits::{SESSION_TOKEN_BYTES_MAX, VECTOR_TIMELINES_MAX};
use crate::vector::VersionVector;
use crate::version::Version;

/// Bytes of the truncated authentication code.
const TAG_BYTES: usize = 16;
/// Separates these codes from any other use of the key, and tells formats apart.
const DOMAIN: &[u8] = b"longhaul session token 1";

/// A session token that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It exceeds `SESSION_TOKEN_BYTES_MAX`.
    #[error(
        "the session token has {bytes} bytes and may have {SESSION_TOKEN_BYTES_MAX}; start a new session without a token"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is not base64url, or not a token inside.
    #[error(
        "the session token is malformed; send it exactly as the last answer gave it, or start a new session without a token"
    )]
    Malformed,
    /// Its authentication code is wrong.
    #[error("the session token was not issued by this testbed; start a new session without a token")]
    Forged,
}

/// The key that all regions of a testbed share.
#[derive(Clone)]
pub struct TokenKey(Hmac<Sha256>);

impl TokenKey {
    /// A key from secret bytes of any length.
    pub fn new(secret: &[u8]) -> Self {
        Self(<Hmac<Sha256> as KeyInit>::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    fn mac(&self, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(DOMAIN);
        mac.update(body);
        mac
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// What a client has read and written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionToken {
    /// The newest regime that it met.
    pub epoch: Epoch,
    /// Everything that it has seen: a region serves it once it has applied this.
    pub seen: VersionVector,
    /// The greatest version that it has seen: its next write must get a greater one.
    pub version: Version,
}

impl Default for SessionToken {
    fn default() -> Self {
        Self { epoch: Epoch(0), seen: VersionVector::default(), version: Version::ZERO }
    }
}

impl SessionToken {
    /// Adds what an answer showed: read-your-writes and monotonic reads follow.
    pub fn observe(&mut self, epoch: Epoch, dot: Dot, version: Version) {
        self.epoch = self.epoch.max(epoch);
        self.seen.advance(dot.timeline, dot.seq);
        self.version = self.version.max(version);
    }

    /// Adds everything that another token of the same client has seen.
    pub fn merge(&mut self, other: &Self) {
        self.epoch = self.epoch.max(other.epoch);
        self.seen.merge(&other.seen);
        self.version = self.version.max(other.version);
    }

    /// Whether a region that has made `applied` visible may serve this client.
    pub fn is_satisfied_by(&self, applied: &VersionVector) -> bool {
        applied.dominates(&self.seen)
    }

    /// The first timeline of which the client has seen more than history kept (`cuts`), with the cut. No region will
    /// ever catch up with it: the answer is `history_truncated`, not a wait.
    pub fn truncated_by(&self, cuts: &VersionVector) -> Option<(Timeline, u64)> {
        cuts.iter().find(|(timeline, cut)| self.seen.get(*timeline) > *cut)
    }

    /// The token as text: base64url of the authentication code and the postcard body.
    pub fn encode(&self, key: &TokenKey) -> Result<String, TokenError> {
        let body = postcard::to_allocvec(self).map_err(|_| TokenError::Malformed)?;
        let mut bytes = key.mac(&body).finalize().into_bytes()[..TAG_BYTES].to_vec();
        bytes.extend_from_slice(&body);
        let text = base64url::encode(&bytes);
        if text.len() > SESSION_TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong { bytes: text.len() });
        }
        Ok(text)
    }

    /// Reads what [`SessionToken::encode`] wrote with the same key. Nothing is parsed before it is authenticated.
    pub fn decode(text: &str, key: &TokenKey) -> Result<Self, TokenError> {
        if text.len() > SESSION_TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong { bytes: text.len() });
        }
        let bytes = base64url::decode(text).ok_or(TokenError::Malformed)?;
        let (tag, body) = bytes.split_at_checked(TAG_BYTES).ok_or(TokenError::Malformed)?;
        key.mac(body).verify_truncated_left(tag).map_err(|_| TokenError::Forged)?;
        match postcard::take_from_bytes::<Self>(body) {
            Ok((token, [])) if token.seen.0.len() <= VECTOR_TIMELINES_MAX => Ok(token),
            _ => Err(TokenError::Malformed),
        }
    }
}

/// RFC 4648 §5 without padding, strict: one text per byte string.
mod base64url {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for digit in 0..=chunk.len() {
                text.push(char::from(ALPHABET[(word >> (18 - 6 * digit)) as usize & 63]));
            }
        }
        text
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
        for chunk in text.as_bytes().chunks(4) {
            let mut word = 0_u32;
            for byte in chunk {
                word = word << 6 | value(*byte)?;
            }
            let whole = chunk.len() * 6 / 8;
            let spare = chunk.len() * 6 % 8;
            if whole == 0 || word & ((1 << spare) - 1) != 0 {
                return None;
            }
            bytes.extend_from_slice(&(word >> spare).to_be_bytes()[4 - whole..]);
        }
        Some(bytes)
    }

    fn value(byte: u8) -> Option<u32> {
        Some(u32::from(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::RegionId;

    fn token() -> impl Strategy<Value = SessionToken> {
        let seen = prop::collection::btree_map(
            (1_u16..9, 1_u32..9).prop_map(|(r, i)| Timeline::new(r, i)),
            any::<u64>(),
            0..20,
        );
        (any::<u64>(), seen, any::<(u64, u32, u16)>()).prop_map(|(epoch, seen, (time_ns, count, region))| {
            SessionToken {
                epoch: Epoch(epoch),
                seen: VersionVector(seen),
                version: Version { time_ns, count, region: RegionId(region) },
            }
        })
    }

    #[test]
    fn a_token_says_when_history_was_truncated_below_it() {
        let mut token = SessionToken::default();
        token.observe(Epoch(1), Dot { timeline: Timeline::new(1, 1), seq: 7 }, Version::ZERO);
        let cuts = |seq| VersionVector::from_iter([(Timeline::new(1, 1), seq)]);
        assert_eq!(token.truncated_by(&cuts(7)), None);
        assert_eq!(token.truncated_by(&cuts(6)), Some((Timeline::new(1, 1), 6)));
        assert!(token.is_satisfied_by(&cuts(7)) && !token.is_satisfied_by(&cuts(6)));
    }

    #[test]
    fn a_token_that_names_too_much_is_refused_when_it_is_made() {
        let seen = (0..1000).map(|i| (Timeline::new(i, u32::MAX), u64::MAX)).collect();
        let token = SessionToken { seen, ..SessionToken::default() };
        assert!(matches!(token.encode(&TokenKey::new(b"k")), Err(TokenError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn a_token_comes_back_as_it_was_and_only_with_its_key(token in token()) {
            let text = token.encode(&TokenKey::new(b"secret")).unwrap();
            prop_assert_eq!(SessionToken::decode(&text, &TokenKey::new(b"secret")), Ok(token));
            prop_assert_eq!(SessionToken::decode(&text, &TokenKey::new(b"Secret")), Err(TokenError::Forged));
        }

        #[test]
        fn a_token_changed_anywhere_is_refused(token in token(), at: prop::sample::Index, to in "[A-Za-z0-9_-]") {
            let key = TokenKey::new(b"secret");
            let text = token.encode(&key).unwrap();
            let at = at.index(text.len());
            let changed = format!("{}{to}{}", &text[..at], &text[at + 1..]);
            prop_assume!(changed != text);
            prop_assert!(SessionToken::decode(&changed, &key).is_err());
        }

        #[test]
        fn any_text_is_an_error_and_no_panic(text in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let key = TokenKey::new(b"secret");
            prop_assert!(SessionToken::decode(&text, &key).is_err());
            prop_assert!(SessionToken::decode(&base64url::encode(&bytes), &key).is_err());
            prop_assert_eq!(base64url::decode(&base64url::encode(&bytes)), Some(bytes));
        }
    }
}
