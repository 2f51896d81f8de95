//! Names of spans and attributes have one place: what the services write is in it, and nothing in it is unused.

use std::collections::BTreeSet;
use std::path::Path;

use longhaul_telemetry::names::{attribute, span};

use crate::root;

/// Names in the services' sources: of spans, and of our own attributes.
#[derive(Default)]
struct Written {
    spans: BTreeSet<String>,
    attributes: BTreeSet<String>,
}

impl Written {
    fn read(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.read(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                self.source(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    fn source(&mut self, text: &str) {
        for (at, macro_name) in text.match_indices("debug_span!(") {
            let inside = inside(&text[at + macro_name.len()..]);
            let name = inside.split('"').nth(1).unwrap_or_default();
            self.spans.insert(name.to_owned());
            for word in inside.split(|c: char| c.is_whitespace() || c == ',') {
                // Inside quotes it is a text, such as the name of a destination.
                if word.starts_with("longhaul.") && !word.ends_with('"') {
                    self.attributes.insert(word.to_owned());
                }
            }
        }
        for (at, call) in text.match_indices(".record(\"longhaul.") {
            let name = text[at + call.len()..].split('"').next().unwrap_or_default();
            self.attributes.insert(format!("longhaul.{name}"));
        }
    }
}

/// The text up to the parenthesis that closes the one before it.
fn inside(text: &str) -> &str {
    let mut depth = 1;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

#[test]
fn every_span_and_attribute_is_in_the_list_and_every_entry_is_used() {
    let mut written = Written::default();
    for service in ["http", "region", "gateway", "control", "traffic"] {
        written.read(&root().join("services").join(service).join("src"));
    }
    let spans: BTreeSet<String> = span::ALL.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(written.spans, spans);
    let mut attributes: BTreeSet<String> = attribute::ALL.iter().map(|name| (*name).to_owned()).collect();
    // Of the resource; telemetry writes it itself.
    attributes.remove(attribute::ROLE);
    assert_eq!(written.attributes, attributes);
}
