//! `dashboards`: writes Grafana's dashboards from one readable description.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::outcome::Outcome;

/// The description.
const SOURCE: &str = include_str!("../../../../dashboards/dashboards.toml");
/// Grafana's columns.
const COLUMNS: u32 = 24;
/// Height of a panel, rows.
const HEIGHT: u32 = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    dashboard: Vec<Dashboard>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dashboard {
    uid: String,
    title: String,
    description: String,
    panel: Vec<Panel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Panel {
    title: String,
    kind: String,
    unit: String,
    width: u32,
    traces: Traces,
    queries: Vec<Query>,
    /// Has data only once a drill has ended.
    #[serde(default)]
    after_drill: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Traces {
    service: String,
    operation: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    min_duration: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    expr: String,
    legend: String,
}

/// Writes the dashboards to `OUT/grafana/dashboards`, and what their queries ask to `OUT/queries.tsv`.
pub(crate) fn run(out: &Path) -> Outcome {
    let written = files().and_then(|files| {
        for (name, text) in files {
            let path = out.join(name);
            let folder = path.parent().unwrap_or(out);
            let wrote = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text));
            wrote.map_err(|error| format!("{} cannot be written: {error}; choose another folder", path.display()))?;
        }
        Ok(())
    });
    match written {
        Ok(()) => Outcome::Met,
        Err(reason) => Outcome::invalid(reason),
    }
}

/// Every file by its name, with its text.
pub(crate) fn files() -> Result<Vec<(String, String)>, String> {
    let source: Source =
        toml::from_str(SOURCE).map_err(|error| format!("a defect: dashboards.toml cannot be read: {error}"))?;
    let mut files = Vec::new();
    let mut queries = String::from("dashboard\tpanel\tafter a drill\tquery\n");
    for dashboard in &source.dashboard {
        for panel in &dashboard.panel {
            for query in &panel.queries {
                queries
                    .push_str(&format!("{}\t{}\t{}\t{}\n", dashboard.uid, panel.title, panel.after_drill, query.expr));
            }
        }
        let text = serde_json::to_string_pretty(&render(dashboard)).map_err(|error| format!("a defect: {error}"))?;
        files.push((format!("grafana/dashboards/{}.json", dashboard.uid), text + "\n"));
    }
    files.push(("queries.tsv".to_owned(), queries));
    Ok(files)
}

fn render(dashboard: &Dashboard) -> Value {
    let (mut x, mut y) = (0, 0);
    let mut panels = Vec::new();
    for (index, panel) in dashboard.panel.iter().enumerate() {
        if x + panel.width > COLUMNS {
            (x, y) = (0, y + HEIGHT);
        }
        panels.push(render_panel(index as u32 + 1, panel, x, y));
        x += panel.width;
    }
    json!({
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["longhaul"],
        "schemaVersion": 41,
        "version": 1,
        "editable": true,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {"list": [{
            "type": "textbox", "name": "jaeger", "label": "Jaeger",
            "query": "http://localhost:16686",
            "current": {"text": "http://localhost:16686", "value": "http://localhost:16686"},
            "options": []
        }]},
        "annotations": {"list": [
            annotation("faults", "red", "changes(longhaul_control_faults_active[10s]) > 0", "fault injected or healed"),
            annotation("regime", "purple", "changes(longhaul_gateway_epoch[10s]) > 0", "{{edge}} follows a new epoch"),
            annotation("drills", "blue", "changes(longhaul_control_drills_running[10s]) > 0", "drill began or ended"),
        ]},
        "links": [{"type": "dashboards", "tags": ["longhaul"], "title": "longhaul", "asDropdown": true, "includeVars": true, "keepTime": true}],
        "panels": panels,
    })
}

fn annotation(name: &str, color: &str, expr: &str, title: &str) -> Value {
    json!({
        "name": name, "enable": true, "iconColor": color, "expr": expr, "titleFormat": title, "step": "5s",
        "datasource": {"type": "prometheus", "uid": "prometheus"}
    })
}

fn render_panel(id: u32, panel: &Panel, x: u32, y: u32) -> Value {
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .enumerate()
        .map(|(index, query)| {
            json!({
                "refId": char::from(b'A' + index as u8).to_string(),
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": panel.kind == "table",
                "range": panel.kind != "table",
                "datasource": {"type": "prometheus", "uid": "prometheus"}
            })
        })
        .collect();
    let link = json!({"title": "Traces behind this", "url": search(&panel.traces), "targetBlank": true});
    json!({
        "id": id,
        "type": panel.kind,
        "title": panel.title,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT},
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "targets": targets,
        "links": [link],
        "fieldConfig": {"defaults": {"unit": panel.unit, "links": [link]}, "overrides": []},
        "options": {}
    })
}

/// Jaeger's search within the panel's time (Grafana tells milliseconds, Jaeger wants microseconds).
fn search(traces: &Traces) -> String {
    let mut url =
        format!("${{jaeger}}/search?service={}&start=${{__from}}000&end=${{__to}}000&limit=50", traces.service);
    if let Some(operation) = &traces.operation {
        url.push_str(&format!("&operation={}", operation.replace(' ', "%20")));
    }
    if let Some(least) = &traces.min_duration {
        url.push_str(&format!("&minDuration={least}"));
    }
    if !traces.tags.is_empty() {
        let tags = json!(traces.tags).to_string();
        let encoded = tags.replace('{', "%7B").replace('}', "%7D").replace('"', "%22").replace(':', "%3A");
        url.push_str(&format!("&tags={encoded}"));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_in_the_repository_is_what_the_description_says() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
        for (name, text) in files().unwrap() {
            let kept = std::fs::read_to_string(root.join(&name)).unwrap_or_default();
            assert!(kept == text, "dashboards/{name} is out of date; run longhaul dashboards --out dashboards");
        }
    }

    #[test]
    fn every_panel_asks_something_has_a_search_for_its_traces_and_overlaps_no_other() {
        let source: Source = toml::from_str(SOURCE).unwrap();
        assert_eq!(source.dashboard.len(), 4);
        for dashboard in &source.dashboard {
            let json = render(dashboard);
            let mut taken = Vec::new();
            for panel in json["panels"].as_array().unwrap() {
                assert!(panel["links"][0]["url"].as_str().unwrap().starts_with("${jaeger}/search?service=longhaul-"));
                assert!(!panel["targets"].as_array().unwrap().is_empty(), "{}", panel["title"]);
                assert!(["timeseries", "stat", "table"].contains(&panel["type"].as_str().unwrap()));
                let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
                let (x, y, width) = (place("x"), place("y"), place("w"));
                assert!(x + width <= u64::from(COLUMNS), "{}", panel["title"]);
                assert!(taken.iter().all(|(other_x, other_y, other_width)| {
                    *other_y != y || x >= other_x + other_width || other_x >= &(x + width)
                }));
                taken.push((x, y, width));
            }
        }
    }
}
