//! What a run's values carry so that they can be recognised anywhere: operation ids and canaries, derived from the
//! run's key.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// The secret of a run. Nobody without it can make a value that passes for one of the run.
#[derive(Clone)]
pub struct RunKey(Hmac<Sha256>);

impl std::fmt::Debug for RunKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunKey(..)")
    }
}

impl RunKey {
    /// From a text that no other run uses.
    pub fn new(text: &str) -> Self {
        Self(<Hmac<Sha256> as KeyInit>::new_from_slice(text.as_bytes()).expect("HMAC takes keys of any length"))
    }

    fn derive(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 16] {
        let mut mac = self.0.clone();
        mac.update(purpose.as_bytes());
        for part in parts {
            mac.update(&[0]);
            mac.update(part);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        bytes
    }

    /// Eight hexadecimal digits that tell this run's records from those of other runs on the same testbed.
    pub fn tag(&self) -> String {
        hex(&self.derive("tag", &[])[..4])
    }

    /// The operation id (idempotency key) of the n-th operation: a UUID version 7 with `n` for its time. Ids that rise
    /// keep a store's index of them compact, which is why that version is recommended for keys (RFC 9562, section 6.13).
    pub fn op_id(&self, n: u32) -> Uuid {
        let bytes = self.derive("operation", &[&n.to_be_bytes()]);
        let mut random = [0; 10];
        random.copy_from_slice(&bytes[..10]);
        uuid::Builder::from_unix_timestamp_millis(u64::from(n), &random).into_uuid()
    }

    /// The canary in the value that the operation wrote for a record of `home`: 32 hexadecimal digits that occur
    /// nowhere but where that value is.
    pub fn canary(&self, op_id: Uuid, home: &str) -> String {
        hex(&self.derive("canary", &[op_id.as_bytes(), home.as_bytes()]))
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_canaries_differ_by_run_operation_and_home() {
        let (a, b) = (RunKey::new("a"), RunKey::new("b"));
        assert_eq!(a.op_id(1), RunKey::new("a").op_id(1));
        assert_ne!(a.op_id(1), a.op_id(2));
        assert_ne!(a.op_id(1), b.op_id(1));
        assert!(a.op_id(1) < a.op_id(2) && a.op_id(255) < a.op_id(256));
        assert_ne!(a.tag(), b.tag());
        let op_id = a.op_id(1);
        assert_ne!(a.canary(op_id, "eu"), a.canary(op_id, "us"));
        assert_ne!(a.canary(op_id, "eu"), b.canary(op_id, "eu"));
        assert_eq!(a.canary(op_id, "eu").len(), 32);
    }
}
