//! The certificate of a run: the links as measured before and after, joined.

use longhaul_core::report::LinkCheck;

/// Joins both measurements. A pair that one of them lacks is not proven.
pub(crate) fn join(before: Vec<LinkCheck>, after: &[LinkCheck]) -> Vec<LinkCheck> {
    let joined = before.into_iter().map(|check| {
        let later = after.iter().find(|later| later.from == check.from && later.to == check.to);
        LinkCheck {
            measured_after_rtt_ms: later.and_then(|later| later.measured_rtt_ms),
            ok: check.ok && later.is_some_and(|later| later.ok),
            ..check
        }
    });
    joined.collect()
}

/// One line for each pair that is not as declared.
pub(crate) fn trouble(links: &[LinkCheck]) -> Vec<String> {
    let text = |measured: Option<f64>| measured.map_or_else(|| "no answer".to_owned(), |ms| format!("{ms:.1} ms"));
    let line = |check: &LinkCheck| {
        format!(
            "link {} → {}: declared {:.1} ms, measured {} before and {} after, tolerance {:.1} ms",
            check.from,
            check.to,
            check.declared_rtt_ms,
            text(check.measured_rtt_ms),
            text(check.measured_after_rtt_ms),
            check.tolerance_ms
        )
    };
    links.iter().filter(|check| !check.ok).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(to: &str, measured: Option<f64>, ok: bool) -> LinkCheck {
        LinkCheck {
            from: "a".into(),
            to: to.into(),
            declared_rtt_ms: 80.0,
            measured_rtt_ms: measured,
            measured_after_rtt_ms: None,
            tolerance_ms: 1.6,
            ok,
            source: String::new(),
        }
    }

    #[test]
    fn a_link_is_proven_only_by_both_measurements() {
        let before = vec![check("b", Some(80.1), true), check("c", Some(80.2), true), check("d", Some(80.0), true)];
        let after = [check("b", Some(80.3), true), check("c", None, false)];
        let joined = join(before, &after);
        assert_eq!(joined.iter().map(|link| link.ok).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(joined[0].measured_after_rtt_ms, Some(80.3));
        assert_eq!(trouble(&joined).len(), 2);
    }
}
