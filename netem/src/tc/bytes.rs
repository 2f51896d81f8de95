//! Reading the counters of classes.

use std::collections::BTreeMap;

/// Bytes that left each class, by its id (`1:10`), from `tc -s class show`. What cannot be read counts as nothing. (In
/// words: as JSON the tool shows classes only in later versions.)
pub(super) fn by_class(text: &str) -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    let mut class = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["class", _, id, ..] => class = Some(id.to_owned()),
            ["Sent", bytes, "bytes", ..] => {
                if let (Some(id), Ok(bytes)) = (class.take(), bytes.parse()) {
                    counters.insert(id, bytes);
                }
            }
            _ => {}
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_own_counter() {
        let text = "class htb 1:11 root leaf 102: prio 0 rate 10Gbit ceil 10Gbit burst 1046250b cburst 1046250b \n \
                    Sent 9012 bytes 11 pkt (dropped 1, overlimits 0 requeues 0) \n backlog 0b 0p requeues 0\n\
                    class htb 1:10 root leaf 100: prio 0 rate 10Gbit ceil 10Gbit burst 1046250b cburst 1046250b \n \
                    Sent 77 bytes 1 pkt (dropped 0, overlimits 0 requeues 0) \n";
        assert_eq!(by_class(text), [("1:10".to_owned(), 77), ("1:11".to_owned(), 9012)].into());
        assert_eq!(by_class("nonsense\n Sent 5 bytes"), BTreeMap::new());
    }
}
