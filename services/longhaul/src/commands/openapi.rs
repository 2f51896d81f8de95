//! `openapi`: the documents of every role, generated from the code.

use std::path::Path;

use utoipa::openapi::OpenApi;

use crate::outcome::Outcome;

/// Every role with its document.
fn documents() -> [(&'static str, OpenApi); 5] {
    [
        ("region", longhaul_region::openapi()),
        ("gateway", longhaul_gateway::openapi()),
        ("traffic", longhaul_traffic::openapi()),
        ("link", longhaul_netem::agent::openapi()),
        ("control", longhaul_control::openapi()),
    ]
}

/// Writes them.
pub(crate) fn run(out: &Path) -> Outcome {
    let cannot = |error: std::io::Error| {
        Outcome::invalid(format!("{} cannot be written: {error}; choose another folder with --out", out.display()))
    };
    if let Err(error) = std::fs::create_dir_all(out) {
        return cannot(error);
    }
    for (role, document) in documents() {
        let text = match document.to_pretty_json() {
            Ok(text) => text + "\n",
            Err(error) => return Outcome::invalid(format!("a defect: the document of {role}: {error}")),
        };
        if let Err(error) = std::fs::write(out.join(format!("{role}.json")), text) {
            return cannot(error);
        }
    }
    Outcome::Met
}
