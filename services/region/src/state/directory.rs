//! Where each peer is dialled now. A region with several API instances has several addresses, and only one instance
//! at a time answers peers; whoever finds that an address does not serve passes on to the next one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use longhaul_core::error_code::ErrorCode;
use longhaul_core::ids::RegionId;
use longhaul_http::client::CallError;

use crate::config::Addresses;

/// The address book.
#[derive(Debug)]
pub struct Directory {
    entries: BTreeMap<RegionId, Entry>,
}

#[derive(Debug)]
struct Entry {
    addresses: Vec<String>,
    current: Mutex<usize>,
}

impl Directory {
    pub(super) fn new(peers: &BTreeMap<RegionId, Addresses>) -> Self {
        let entry = |addresses: &Addresses| Entry { addresses: addresses.all().to_vec(), current: Mutex::new(0) };
        Self { entries: peers.iter().map(|(peer, addresses)| (*peer, entry(addresses))).collect() }
    }

    /// Where to dial a peer now.
    pub fn address(&self, peer: RegionId) -> Option<&str> {
        let entry = self.entries.get(&peer)?;
        let current = *entry.current.lock().unwrap_or_else(PoisonError::into_inner);
        entry.addresses.get(current).map(String::as_str)
    }

    /// Whether a peer has more than one address.
    pub fn has_choice(&self, peer: RegionId) -> bool {
        self.entries.get(&peer).is_some_and(|entry| entry.addresses.len() > 1)
    }

    /// Takes note of a call that failed: an address that did not answer, or where nobody serves, is passed on.
    pub fn failed(&self, peer: RegionId, address: &str, error: &CallError) {
        let serves_nobody =
            |code| matches!(code, ErrorCode::NotReady | ErrorCode::ShuttingDown | ErrorCode::StoreUnavailable);
        if !matches!(error, CallError::Problem { problem, .. } if !serves_nobody(problem.code)) {
            self.pass_on(peer, address);
        }
    }

    /// An address did not serve: the next one is tried from now on, unless somebody has passed on already.
    pub fn pass_on(&self, peer: RegionId, failed: &str) {
        let Some(entry) = self.entries.get(&peer) else { return };
        let mut current = entry.current.lock().unwrap_or_else(PoisonError::into_inner);
        if entry.addresses.len() > 1 && entry.addresses.get(*current).is_some_and(|address| address == failed) {
            *current = (*current + 1) % entry.addresses.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(addresses: &[&str]) -> Directory {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        Directory::new(&[(RegionId(2), addresses.into())].into())
    }

    #[test]
    fn whoever_fails_passes_on_once_and_the_last_leads_to_the_first() {
        let directory = directory(&["a:1", "b:1"]);
        directory.pass_on(RegionId(2), "a:1");
        // Two calls failed at the same address: one step, not two.
        directory.pass_on(RegionId(2), "a:1");
        assert_eq!(directory.address(RegionId(2)), Some("b:1"));
        directory.pass_on(RegionId(2), "b:1");
        assert_eq!(directory.address(RegionId(2)), Some("a:1"));
    }

    #[test]
    fn a_single_address_stays_and_an_unknown_peer_has_none() {
        let directory = directory(&["a:1"]);
        directory.pass_on(RegionId(2), "a:1");
        assert_eq!(directory.address(RegionId(2)), Some("a:1"));
        assert_eq!(directory.address(RegionId(9)), None);
    }
}
