//! Byte search for residency sweeps: many needles, one pass over each haystack.

use std::collections::BTreeMap;
use std::io::{self, Read};

use bytes::Bytes;

/// Bytes of a file that are searched at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What is looked for, by first byte. Empty needles are never found.
pub(super) struct Needles {
    all: Vec<Bytes>,
    by_first_byte: Vec<Vec<usize>>,
    longest: usize,
}

impl Needles {
    /// Prepares a search.
    pub(super) fn new(needles: &[Bytes]) -> Self {
        let mut by_first_byte = vec![Vec::new(); 256];
        for (index, needle) in needles.iter().enumerate() {
            if let Some(first) = needle.first() {
                by_first_byte[usize::from(*first)].push(index);
            }
        }
        let longest = needles.iter().map(Bytes::len).max().unwrap_or(0);
        Self { all: needles.to_vec(), by_first_byte, longest }
    }

    /// Calls `found` with the needle and the offset of each occurrence.
    fn search(&self, haystack: &[u8], mut found: impl FnMut(usize, usize)) {
        for (offset, byte) in haystack.iter().enumerate() {
            for &index in &self.by_first_byte[usize::from(*byte)] {
                if haystack[offset..].starts_with(&self.all[index]) {
                    found(index, offset);
                }
            }
        }
    }
}

/// Where needles were seen: at most one line per needle and place, so the answer stays small however often they occur.
#[derive(Default)]
pub(super) struct Sightings {
    places: BTreeMap<(usize, String), (u64, String)>,
}

impl Sightings {
    /// Searches one row or value that a person can name.
    pub(super) fn search_row(&mut self, needles: &Needles, place: &str, row: &dyn std::fmt::Display, bytes: &[u8]) {
        needles.search(bytes, |needle, _| self.add(needle, place, || row.to_string()));
    }

    /// Searches a file from where it stands to its end, occurrences across chunk borders included.
    pub(super) fn search_file(&mut self, needles: &Needles, place: &str, mut file: impl Read) -> io::Result<()> {
        let mut window = Vec::with_capacity(CHUNK_BYTES + needles.longest);
        let mut window_offset = 0_u64;
        loop {
            // What earlier rounds have searched already: occurrences that end inside it are counted.
            let searched = window.len();
            let read = file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut window)?;
            if read == 0 {
                return Ok(());
            }
            needles.search(&window, |needle, offset| {
                if offset + needles.all[needle].len() > searched {
                    self.add(needle, place, || format!("byte {}", window_offset + offset as u64));
                }
            });
            let keep_from = window.len().saturating_sub(needles.longest.saturating_sub(1));
            window_offset += keep_from as u64;
            window.drain(..keep_from);
        }
    }

    fn add(&mut self, needle: usize, place: &str, first: impl FnOnce() -> String) {
        self.places.entry((needle, place.to_owned())).or_insert_with(|| (0, first())).0 += 1;
    }

    /// Adds what another search saw.
    pub(super) fn merge(&mut self, other: Self) {
        for (key, (count, first)) in other.places {
            self.places.entry(key).or_insert((0, first)).0 += count;
        }
    }

    /// The needle's index and one line about each place.
    pub(super) fn into_list(self) -> Vec<(usize, String)> {
        self.places
            .into_iter()
            .map(|((needle, place), (count, first))| (needle, format!("{place}: {count} times, first at {first}")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_across_two_chunks_is_found_once() {
        let mut bytes = vec![b'.'; CHUNK_BYTES + 100];
        bytes[CHUNK_BYTES - 3..CHUNK_BYTES + 3].copy_from_slice(b"canary");
        bytes[10..16].copy_from_slice(b"canary");
        let needles = Needles::new(&[Bytes::from_static(b"absent"), Bytes::from_static(b"canary")]);
        let mut sightings = Sightings::default();
        sightings.search_file(&needles, "a file", bytes.as_slice()).unwrap();
        assert_eq!(sightings.into_list(), vec![(1, "a file: 2 times, first at byte 10".to_owned())]);
    }

    #[test]
    fn an_empty_needle_is_never_found_and_a_single_byte_is_found_at_the_end() {
        let needles = Needles::new(&[Bytes::new(), Bytes::from_static(b"z")]);
        let mut sightings = Sightings::default();
        sightings.search_row(&needles, "table", &"1/a", b"abcz");
        assert_eq!(sightings.into_list(), vec![(1, "table: 1 times, first at 1/a".to_owned())]);
    }
}
