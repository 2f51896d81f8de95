//! Plans and topologies, by name or by path.

use std::path::Path;

use longhaul_core::plan::{self, DrillPlan};
use longhaul_core::topology::{self, Topology};

/// Largest plan or topology file, bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A topology by name, or from a file; round-trip tables lie in the folder `rtt` beside it.
pub(crate) fn topology(name: &str) -> Result<Topology, String> {
    if let Some(shipped) = Topology::shipped(name) {
        return shipped.map_err(|error| error.to_string());
    }
    if !is_path(name) {
        let known = topology::SHIPPED.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        return Err(format!("there is no topology {name:?}; use one of {known}, or a path to a TOML file"));
    }
    let text = read("topology", name)?;
    let tables = Path::new(name).parent().unwrap_or(Path::new("")).join("rtt");
    let table = |table: &str| {
        let plain = table.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        plain.then(|| read("table", tables.join(format!("{table}.csv")).to_str()?).ok())?
    };
    Topology::parse(name, &text, &table).map_err(|error| error.to_string())
}

/// A plan by name, or from a file, with the label that errors name it by.
pub(crate) fn plan(name: &str) -> Result<(DrillPlan, String), String> {
    if let Some(shipped) = DrillPlan::shipped(name) {
        return shipped.map(|plan| (plan, format!("drills/{name}.toml"))).map_err(|error| error.to_string());
    }
    if !is_path(name) {
        let known = plan::SHIPPED.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        return Err(format!("there is no drill {name:?}; use one of {known}, or a path to a TOML file"));
    }
    let text = read("drill", name)?;
    DrillPlan::parse(name, &text).map(|plan| (plan, name.to_owned())).map_err(|error| error.to_string())
}

/// The topology of a plan: what the user names, or what the plan was written for (beside the plan, or shipped).
pub(crate) fn topology_of(named: Option<&str>, plan: &DrillPlan, plan_label: &str) -> Result<Topology, String> {
    if let Some(name) = named {
        return topology(name);
    }
    let beside = Path::new(plan_label).parent().map(|folder| folder.join(format!("{}.toml", plan.topology)));
    match beside {
        Some(path) if path.is_file() && Topology::shipped(&plan.topology).is_none() => {
            topology(&path.to_string_lossy())
        }
        _ => topology(&plan.topology).map_err(|error| format!("{plan_label}: topology: {error}")),
    }
}

/// Puts the plan onto a topology that it was not written for: its names stand for the ones at the same place there
/// ([`DrillPlan::transfer`]). Answers with a line that tells people which for which.
pub(crate) fn transfer(plan: &mut DrillPlan, label: &str, topology: &Topology) -> Option<String> {
    // A plan may be written for a topology that is not at hand; then its names mean what they say.
    let own = topology_of(None, plan, label).ok()?;
    let replaced = plan.transfer(&own, topology);
    let pairs: Vec<_> = replaced.iter().map(|(name, stand_in)| format!("{name} is {stand_in}")).collect();
    let line = || format!("{label} was written for {}; on {} {}", own.name, topology.name, pairs.join(", "));
    (!pairs.is_empty()).then(line)
}

fn is_path(name: &str) -> bool {
    name.contains('/')
        || Path::new(name).extension().is_some_and(|extension| extension == "toml")
        || Path::new(name).is_file()
}

fn read(what: &str, path: &str) -> Result<String, String> {
    let refuse = |reason: String| format!("{what} {path} cannot be read: {reason}");
    let size = std::fs::metadata(path).map_err(|error| refuse(format!("{error}; check the path")))?.len();
    if size > FILE_BYTES_MAX {
        return Err(refuse(format!("it has {size} bytes, more than {FILE_BYTES_MAX}; name another file")));
    }
    std::fs::read_to_string(path).map_err(|error| refuse(format!("{error}; name a text file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_names_are_found_from_any_directory() {
        assert_eq!(topology("two-regions").unwrap().name, "two-regions");
        assert_eq!(plan("switchover").unwrap().0.name, "switchover");
    }

    #[test]
    fn unknown_names_list_the_known_ones_and_missing_files_are_named() {
        assert!(topology("atlantis").unwrap_err().contains("three-continents"));
        assert!(plan("region-lost").unwrap_err().contains("region-loss"));
        assert!(plan("nowhere/at-all.toml").unwrap_err().contains("nowhere/at-all.toml cannot be read"));
    }

    #[test]
    fn a_topology_file_finds_the_tables_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("rtt")).unwrap();
        std::fs::write(folder.path().join("rtt/mine.csv"), "from,to,rtt_ms\na,b,20\nb,a,20\n").unwrap();
        let text = "name='t'\n[rtt]\ntable='mine'\nsource='me'\n[[region]]\nname='a'\n[[region]]\nname='b'\n";
        let path = folder.path().join("t.toml");
        std::fs::write(&path, text).unwrap();
        assert_eq!(topology(path.to_str().unwrap()).map(|topology| topology.regions().count()), Ok(2));
    }
}
