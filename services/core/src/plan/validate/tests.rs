use super::*;

const BASE: &str = r#"
name = "base"
description = "A loss and a return."
topology = "three-continents"
duration_s = 30
[regime]
mode = "active-passive"
[traffic]
rate_per_s = 100
[[steps]]
at_s = 5
do = "region-loss"
region = "us-east-1"
[[steps]]
at_s = 15
do = "region-return"
region = "us-east-1"
[[steps]]
at_s = 20
do = "link"
from = "london"
to = "eu-west-1"
change = { state = "cut" }
[expect]
converged = true
[[expect_in]]
mode = "active-passive"
durability = "semi(1)"
rpo_writes_max = 0
"#;

fn topology() -> Topology {
    Topology::shipped("three-continents").unwrap().unwrap()
}

fn judge(text: &str) -> Result<(), PlanError> {
    DrillPlan::parse("d.toml", text).unwrap().validate_as("d.toml", &topology())
}

#[test]
fn every_shipped_drill_fits_the_topology_it_was_written_for() {
    for (name, _) in super::super::SHIPPED {
        let plan = DrillPlan::shipped(name).unwrap().unwrap();
        assert_eq!(plan.name, *name);
        let topology = Topology::shipped(&plan.topology).unwrap().unwrap();
        plan.validate(&topology).unwrap();
    }
}

#[test]
fn the_base_plan_is_accepted() {
    judge(BASE).unwrap();
}

#[test]
fn what_cannot_be_is_refused_with_file_key_and_remedy() {
    let cases = [
        ("name = \"base\"", "name = \" \"", "name", "short name"),
        ("duration_s = 30", "duration_s = 0.5", "duration_s", "1 to 86400 seconds"),
        ("duration_s = 30", "duration_s = nan", "duration_s", "1 to 86400 seconds"),
        ("duration_s = 30", "duration_s = 18", "steps[2].at_s", "the duration"),
        (
            "mode = \"active-passive\"\n[tr",
            "mode = \"active-active\"\nprimary = \"us-east-1\"\n[tr",
            "regime.primary",
            "leave it out",
        ),
        (
            "mode = \"active-passive\"\n[tr",
            "mode = \"active-active\"\ndurability = \"sync\"\n[tr",
            "regime.durability",
            "leave it out",
        ),
        (
            "mode = \"active-passive\"\n[tr",
            "mode = \"active-passive\"\ndurability = \"semi(3)\"\n[tr",
            "regime.durability",
            "fewer",
        ),
        (
            "mode = \"active-passive\"\n[tr",
            "mode = \"active-passive\"\nprimary = \"mars\"\n[tr",
            "regime.primary",
            "us-east-1, eu-west-1",
        ),
        ("rate_per_s = 100", "rate_per_s = 30000", "traffic.rate_per_s", "20000"),
        ("rate_per_s = 100", "read_share = 1.2", "traffic.read_share", "0 to 1"),
        ("rate_per_s = 100", "read_share = nan", "traffic.read_share", "0 to 1"),
        ("rate_per_s = 100", "insert_share = 0.95", "traffic.insert_share", "at most 1"),
        ("rate_per_s = 100", "value_bytes = 60001", "traffic.value_bytes", "60000 bytes"),
        ("rate_per_s = 100", "keys = { zipf = 0.0 }", "traffic.keys", "0 < s"),
        ("rate_per_s = 100", "consistency = \"strong\"", "traffic.consistency", "session"),
        (
            "rate_per_s = 100",
            "rate_per_s = 15000\nshape = { step = { at_s = 3, factor = 2 } }",
            "traffic.shape",
            "20000",
        ),
        (
            "rate_per_s = 100",
            "shape = { spike = { at_s = 31, length_s = 1, factor = 2 } }",
            "traffic.shape.spike.at_s",
            "30",
        ),
        ("region = \"us-east-1\"", "region = \"mars\"", "steps[0].region", "primary, secondary"),
        ("region = \"us-east-1\"", "region = \"london\"", "steps[0].region", "us-east-1"),
        ("region = \"us-east-1\"", "region = \"eu-west-1\"", "steps[1].region", "region-loss"),
        ("at_s = 15", "at_s = 4", "steps[1].at_s", "order of time"),
        ("at_s = 15", "at_s = -4", "steps[1].at_s", "0 to 30"),
        ("at_s = 15\ndo = \"region-return\"", "at_s = 15\ndo = \"region-loss\"", "steps[1].region", "bring it back"),
        (
            "at_s = 15\ndo = \"region-return\"\nregion = \"us-east-1\"",
            "at_s = 15\ndo = \"region-return\"\nregion = \"primary\"",
            "steps[1].region",
            "us-east-1",
        ),
        (
            "at_s = 15\ndo = \"region-return\"\nregion = \"us-east-1\"",
            "at_s = 15\ndo = \"heal-links\"",
            "expect.converged",
            "bring the region back",
        ),
        ("from = \"london\"", "from = \"paris\"", "steps[2].from", "new-york"),
        ("from = \"london\"", "from = \"eu-west-1\"", "steps[2].to", "two locations"),
        ("{ state = \"cut\" }", "{ loss = 2.0 }", "steps[2].change.loss", "0 to 1"),
        ("{ state = \"cut\" }", "{}", "steps[2].change", "name state"),
        ("converged = true", "availability_min = 1.5", "expect.availability_min", "0 to 1"),
        ("converged = true", "rto_write_ms_max = -1.0", "expect.rto_write_ms_max", "at least 0"),
        ("\"semi(1)\"", "\"semi(9)\"", "expect_in[0].durability", "fewer"),
    ];
    for (from, to, key, hint) in cases {
        assert!(BASE.contains(from), "{from}");
        let error = judge(&BASE.replacen(from, to, 1)).expect_err(to);
        let line = error.to_string();
        assert_eq!(error.key, key, "{line}");
        assert!(line.starts_with("d.toml: ") && line.contains(hint) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn a_switchover_needs_a_primary_at_that_moment() {
    let with = |steps: &str| judge(&BASE.replace("[expect]", &format!("{steps}[expect]")));
    let switchover = "[[steps]]\nat_s = 25\ndo = \"switchover\"\nto = \"eu-west-1\"\n";
    let away = "[[steps]]\nat_s = 22\ndo = \"switch\"\nmode = \"active-active\"\n";
    with(switchover).unwrap();
    assert_eq!(with(&format!("{away}{switchover}")).unwrap_err().key, "steps[4].do");
}

#[test]
fn what_was_lost_by_role_may_return_by_name() {
    judge(&BASE.replacen("region = \"us-east-1\"", "region = \"primary\"", 1)).unwrap();
}

#[test]
fn a_topology_without_users_runs_no_drill() {
    let text = "name='x'\n[rtt]\ntable='aws'\n[[region]]\nname='us-east-1'";
    let lonely = Topology::parse("t", text, &|_| None).unwrap();
    let plan = DrillPlan::parse("d.toml", &BASE[..BASE.find("[[steps]]").unwrap()]).unwrap();
    assert_eq!(plan.validate(&lonely).unwrap_err().key, "topology");
}
