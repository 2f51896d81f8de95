//! Tables of measured round trips between sites, and the ones that ship with the program.
//!
//! A table is text in the format `from,to,rtt_ms` (or, for jitter, `from,to,min_ms,avg_ms,max_ms,mdev_ms`). The shipped
//! ones are in `regions/rtt/`; `SOURCES.md` beside them names source, date and licence of each.

use std::collections::{BTreeMap, BTreeSet};

/// One shipped table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// Its name, as a topology cites it.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
    /// What was measured, when and by whom, in a few words.
    pub source: &'static str,
}

/// Every shipped table.
pub const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "aws",
        text: include_str!("../../../regions/rtt/aws.csv"),
        source: "mean of ping between AWS regions, 5 June 2020 (fantoch, MIT or Apache-2.0)",
    },
    BuiltIn {
        name: "aws_jitter",
        text: include_str!("../../../regions/rtt/aws_jitter.csv"),
        source: "mdev of ping between AWS regions, 5 June 2020 (fantoch, MIT or Apache-2.0)",
    },
    BuiltIn {
        name: "azure",
        text: include_str!("../../../regions/rtt/azure.csv"),
        source: "median of 30 days to 29 June 2025 (Microsoft, Azure network round-trip latency statistics, CC BY 4.0)",
    },
    BuiltIn {
        name: "gcp",
        text: include_str!("../../../regions/rtt/gcp.csv"),
        source: "mean of ping between Google Cloud regions, published 18 September 2019 (fantoch, MIT or Apache-2.0)",
    },
    BuiltIn {
        name: "gcp_jitter",
        text: include_str!("../../../regions/rtt/gcp_jitter.csv"),
        source: "mdev of ping between Google Cloud regions, published 18 September 2019 (fantoch, MIT or Apache-2.0)",
    },
];

/// The text of a shipped table, so that neither the installed program nor a test needs a file.
pub fn builtin(name: &str) -> Option<&'static str> {
    describe(name).map(|table| table.text)
}

/// A shipped table with its source.
pub fn describe(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|table| table.name == name)
}

/// Positions of the providers' regions, as `provider,region,lat,lon,source,note`: good enough to draw a map.
pub const REGION_COORDINATES: &str = include_str!("../../../regions/rtt/region_coordinates.csv");

/// A malformed table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct TableError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// One column of a table by directed pair of sites, in milliseconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RttTable {
    figures: BTreeMap<String, BTreeMap<String, f64>>,
}

impl RttTable {
    /// Reads the round trips (column `rtt_ms`).
    pub fn parse(text: &str) -> Result<Self, TableError> {
        Self::parse_column(text, "rtt_ms")
    }

    /// Reads the deviations of a jitter table (column `mdev_ms`).
    pub fn parse_jitter(text: &str) -> Result<Self, TableError> {
        Self::parse_column(text, "mdev_ms")
    }

    fn parse_column(text: &str, column: &str) -> Result<Self, TableError> {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (line, header) = lines.next().ok_or_else(|| TableError {
            line: 1,
            problem: format!("it is empty: it needs a header from,to,{column}"),
        })?;
        let names: Vec<&str> = header.split(',').map(str::trim).collect();
        let at = |name: &str| {
            names
                .iter()
                .position(|other| *other == name)
                .ok_or_else(|| TableError { line, problem: format!("the header {header:?} has no column {name}") })
        };
        let (from, to, figure) = (at("from")?, at("to")?, at(column)?);
        let mut table = Self::default();
        for (line, text) in lines {
            let fields: Vec<&str> = text.split(',').map(str::trim).collect();
            if fields.len() != names.len() {
                let problem = format!("{} fields instead of {}", fields.len(), names.len());
                return Err(TableError { line, problem });
            }
            let milliseconds =
                fields[figure].parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0).ok_or_else(
                    || TableError {
                        line,
                        problem: format!("{column} {:?} is not a number of milliseconds of at least 0", fields[figure]),
                    },
                )?;
            let row = table.figures.entry(fields[from].to_owned()).or_default();
            if row.insert(fields[to].to_owned(), milliseconds).is_some() {
                let problem = format!("the pair {},{} is there twice", fields[from], fields[to]);
                return Err(TableError { line, problem });
            }
        }
        Ok(table)
    }

    /// The figure of a directed pair, milliseconds.
    pub fn get(&self, from: &str, to: &str) -> Option<f64> {
        self.figures.get(from)?.get(to).copied()
    }

    /// Whether the table has any figure of this site.
    pub fn has_site(&self, name: &str) -> bool {
        self.figures.contains_key(name) || self.figures.values().any(|row| row.contains_key(name))
    }

    /// Every site, in order of name.
    pub fn sites(&self) -> BTreeSet<&str> {
        self.figures
            .iter()
            .flat_map(|(from, row)| row.keys().chain(std::iter::once(from)))
            .map(String::as_str)
            .collect()
    }

    /// How many directed pairs it has.
    pub fn len(&self) -> usize {
        self.figures.values().map(BTreeMap::len).sum()
    }

    /// Whether it has no pair at all.
    pub fn is_empty(&self) -> bool {
        self.figures.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_tables_have_the_pairs_that_their_sources_state() {
        let pairs = |name| RttTable::parse(builtin(name).unwrap()).unwrap();
        assert_eq!((pairs("aws").sites().len(), pairs("aws").len()), (19, 342));
        assert_eq!((pairs("gcp").sites().len(), pairs("gcp").len()), (20, 380));
        assert_eq!((pairs("azure").sites().len(), pairs("azure").len()), (51, 2350));
        assert_eq!(RttTable::parse_jitter(builtin("aws_jitter").unwrap()).unwrap().len(), 361);
        assert_eq!(RttTable::parse_jitter(builtin("gcp_jitter").unwrap()).unwrap().len(), 400);
        assert!(builtin("nowhere").is_none());
    }

    #[test]
    fn a_jitter_table_averages_the_figure_of_its_round_trip_table() {
        for name in ["aws", "gcp"] {
            let rtt = RttTable::parse(builtin(name).unwrap()).unwrap();
            let average = RttTable::parse_column(builtin(&format!("{name}_jitter")).unwrap(), "avg_ms").unwrap();
            for (from, row) in &rtt.figures {
                for (to, figure) in row {
                    assert_eq!(average.get(from, to), Some(*figure), "{name} {from} {to}");
                }
            }
        }
    }

    #[test]
    fn a_malformed_table_names_the_line() {
        let refused = |text: &str| RttTable::parse(text).unwrap_err();
        assert_eq!(refused("").line, 1);
        assert!(refused("from,to\na,b").problem.contains("no column rtt_ms"));
        assert_eq!(refused("# words\nfrom,to,rtt_ms\na,b,1\na,c").line, 4);
        for figure in ["-1", "NaN", "inf", "x", ""] {
            assert_eq!(refused(&format!("from,to,rtt_ms\na,b,{figure}")).line, 2, "{figure}");
        }
        assert!(refused("from,to,rtt_ms\na,b,1\na,b,2").problem.contains("twice"));
    }
}
