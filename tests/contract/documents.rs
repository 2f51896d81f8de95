//! The OpenAPI documents in `openapi/` are what the code says.

use std::process::Command;

use crate::{LONGHAUL, root};

#[test]
fn openapi_documents_are_up_to_date() {
    let out = tempfile::tempdir().unwrap();
    let status = Command::new(LONGHAUL).args(["openapi", "--out"]).arg(out.path()).status().unwrap();
    assert!(status.success());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(out.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let generated = std::fs::read_to_string(&path).unwrap();
        let kept = std::fs::read_to_string(root().join("openapi").join(&name)).unwrap_or_default();
        assert!(generated == kept, "openapi/{name} is not what the code says; run: cargo run -- openapi --out openapi");
        let document: serde_json::Value = serde_json::from_str(&generated).unwrap();
        assert_eq!(document["openapi"], "3.1.0", "{name}");
        assert!(document["paths"].as_object().is_some_and(|paths| !paths.is_empty()), "{name} has no paths");
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["control.json", "gateway.json", "link.json", "region.json", "traffic.json"]);
}
