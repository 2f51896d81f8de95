//! What is wrong with a file that a person wrote, in one line that says where, what and what to do.

use std::fmt;

/// A refused file. Displayed as `FILE: KEY: PROBLEM; REMEDY`, always in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputError {
    /// The file as its reader knows it.
    pub file: String,
    /// The key inside it, for example `link[2].rtt_ms`; a line number where the file cannot be read at all.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl InputError {
    /// An error from its four parts.
    pub fn new(
        file: impl Into<String>,
        key: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { file: file.into(), key: key.into(), problem: problem.into(), remedy: remedy.into() }
    }

    /// The error of a reader of TOML: its first line, and the line of the file where it is known.
    pub(crate) fn toml(file: &str, key: &str, text: &str, error: &toml::de::Error) -> Self {
        let key = match error.span() {
            // What is missing at the top has no line of its own.
            Some(span) if key.is_empty() && span.end > 0 => {
                let before = &text.as_bytes()[..span.start.min(text.len())];
                format!("line {}", before.iter().filter(|byte| **byte == b'\n').count() + 1)
            }
            _ if key.is_empty() => "the file".to_owned(),
            _ => key.to_owned(),
        };
        let problem = one_line(error.message());
        let remedy = if problem.contains("expected one of") || problem.contains("there are no fields") {
            "use a name from that list"
        } else if problem.contains("missing field") {
            "add it"
        } else {
            "correct it"
        };
        Self::new(file, key, problem, remedy)
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}; {}", self.file, self.key, self.problem, self.remedy)
    }
}

impl std::error::Error for InputError {}

/// `a, b, c`, or `none`.
pub(crate) fn list<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
