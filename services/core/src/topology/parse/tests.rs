#![expect(clippy::float_cmp, reason = "figures are read from text and halved, which is exact")]

use super::*;

fn parse(text: &str) -> Result<Topology, TopologyError> {
    Topology::parse("t.toml", text, &|_| None)
}

fn name(text: &str) -> LocationName {
    LocationName::new(text).unwrap()
}

/// Two regions of the table and one stated edge.
const SMALL: &str = r#"
name = "small"
[rtt]
table = "aws"
[[region]]
name = "us-east-1"
[[region]]
name = "eu-west-1"
[[edge]]
name = "office"
home = "eu-west-1"
[[link]]
from = "office"
to = "eu-west-1"
rtt_ms = 5
source = "stated: measured by hand"
[[link]]
from = "office"
to = "us-east-1"
delay_ms = 40
one_way = true
source = "stated: there"
[[link]]
from = "us-east-1"
to = "office"
delay_ms = 44
one_way = true
jitter_ms = 1.5
loss = 0.01
rate_kbit = 20000
source = "stated: back"
"#;

#[test]
fn a_round_trip_becomes_two_delays_and_keeps_its_source() {
    let topology = parse(SMALL).unwrap();
    let (us, eu) = (name("us-east-1"), name("eu-west-1"));
    let there = topology.link(&us, &eu).unwrap();
    assert_eq!(there.profile, LinkProfile::delay(70.508 / 2.0));
    assert!(there.source.contains("70.508") && there.source.contains("2020"), "{}", there.source);
    assert_eq!(topology.link(&eu, &us).unwrap().profile.delay_ms, 70.501 / 2.0);
    assert!((topology.round_trip_ms(&us, &eu).unwrap() - 70.5045).abs() < 1e-9);
}

#[test]
fn a_direction_may_be_stated_by_itself() {
    let topology = parse(SMALL).unwrap();
    let (us, office) = (name("us-east-1"), name("office"));
    assert_eq!(topology.link(&office, &us).unwrap().profile, LinkProfile::delay(40.0));
    let back = &topology.link(&us, &office).unwrap();
    assert_eq!((back.profile.delay_ms, back.profile.jitter_ms, back.profile.loss), (44.0, 1.5, 0.01));
    assert_eq!(back.profile.rate_kbit, Some(20_000));
    assert_eq!(back.source, "stated: back");
    assert_eq!(topology.round_trip_ms(&us, &office), Some(84.0));
}

#[test]
fn every_ordered_pair_of_a_shipped_topology_has_a_link_with_a_source() {
    for (label, _) in super::super::SHIPPED {
        let topology = Topology::shipped(label).unwrap().unwrap();
        assert_eq!(topology.name, *label);
        let count = topology.locations.len();
        assert_eq!(topology.links.len(), count * (count - 1), "{label}");
        for ((from, to), link) in &topology.links {
            assert!(!link.source.is_empty() && link.profile.delay_ms > 0.0, "{label} {from} {to}");
            let back = &topology.links[&(to.clone(), from.clone())];
            assert!((link.profile.delay_ms - back.profile.delay_ms).abs() < 5.0, "{label} {from} {to}");
        }
    }
}

#[test]
fn three_continents_is_as_documented() {
    let topology = Topology::shipped("three-continents").unwrap().unwrap();
    let regions: Vec<_> = topology.regions().map(|(id, name)| (id.0, name.as_str())).collect();
    assert_eq!(regions, [(1, "us-east-1"), (2, "eu-west-1"), (3, "ap-southeast-1")]);
    let edges: Vec<_> = topology.edges().map(|edge| (edge.name.as_str(), edge.home.unwrap().0)).collect();
    assert_eq!(edges, [("new-york", 1), ("london", 2), ("singapore", 3)]);
    let rtt = |a, b| topology.round_trip_ms(&name(a), &name(b)).unwrap();
    assert_eq!(rtt("new-york", "us-east-1"), 8.0);
    assert_eq!(rtt("singapore", "ap-southeast-1"), 2.0);
    assert!((rtt("us-east-1", "ap-southeast-1") - 235.76).abs() < 0.01);
    assert!((rtt("london", "new-york") - 76.463).abs() < 0.01);
}

#[test]
fn jitter_from_the_table_is_half_of_the_deviation_in_each_direction() {
    let topology = Topology::shipped("two-regions").unwrap().unwrap();
    let link = topology.link(&name("eu-west-1"), &name("eu-central-1")).unwrap();
    assert_eq!(link.profile.jitter_ms, 0.191 / 2.0);
    assert!(link.source.contains("mdev 0.191 ms"), "{}", link.source);
}

#[test]
fn the_fingerprint_depends_on_names_and_order_of_the_regions_only() {
    let base = parse(SMALL).unwrap().fingerprint;
    assert_eq!(base.len(), 16);
    assert_eq!(parse(&SMALL.replace("rtt_ms = 5", "rtt_ms = 6")).unwrap().fingerprint, base);
    let swapped =
        SMALL.replacen("us-east-1", "swap", 1).replacen("eu-west-1", "us-east-1", 1).replacen("swap", "eu-west-1", 1);
    assert_ne!(parse(&swapped).unwrap().fingerprint, base);
}

#[test]
fn a_table_beside_the_file_needs_a_source() {
    let text = "name='x'\n[rtt]\ntable='mine'\n[[region]]\nname='a'\n[[region]]\nname='b'";
    let mine = |table: &str| (table == "mine").then(|| "from,to,rtt_ms\na,b,10\nb,a,12".to_owned());
    let error = Topology::parse("t.toml", text, &mine).unwrap_err();
    assert_eq!(error.key, "rtt.source");
    let topology = Topology::parse("t.toml", &text.replace("'mine'", "'mine'\nsource='our own ping, today'"), &mine);
    let topology = topology.unwrap();
    assert_eq!(topology.round_trip_ms(&name("a"), &name("b")), Some(11.0));
    assert!(topology.link(&name("a"), &name("b")).unwrap().source.contains("our own ping"));
}

#[test]
fn a_pair_published_in_one_direction_serves_both_and_says_so() {
    let text = "name='x'\n[rtt]\ntable='m'\nsource='s'\n[[region]]\nname='a'\n[[region]]\nname='b'";
    let topology = Topology::parse("t", text, &|_| Some("from,to,rtt_ms\na,b,10".to_owned())).unwrap();
    let back = topology.link(&name("b"), &name("a")).unwrap();
    assert_eq!(back.profile.delay_ms, 5.0);
    assert!(back.source.contains("other direction"), "{}", back.source);
}

#[test]
fn what_is_wrong_is_named_in_one_line_with_file_key_and_remedy() {
    let cases = [
        ("name = \"small\"", "name = \"\"", "name", "short name"),
        ("table = \"aws\"", "table = \"moon\"", "rtt.table", "aws, azure, gcp"),
        ("table = \"aws\"", "table = \"azure\"\njitter = \"table\"", "rtt.jitter", "azure_jitter"),
        ("table = \"aws\"", "table = \"aws\"\njitter = \"much\"", "rtt.jitter", "\"table\""),
        ("name = \"us-east-1\"", "name = \"US\"", "region[0].name", "a-z"),
        ("name = \"us-east-1\"", "name = \"primary\"", "region[0].name", "rename"),
        ("name = \"office\"", "name = \"eu-west-1\"", "edge[0].name", "own name"),
        ("home = \"eu-west-1\"", "home = \"mars\"", "edge[0].home", "us-east-1, eu-west-1"),
        ("home = \"eu-west-1\"", "home = \"eu-west-1\"\nmeasured_as = \"mars\"", "edge[0].measured_as", "eu-west-2"),
        ("from = \"office\"\nto = \"eu-west-1\"", "from = \"office\"\nto = \"mars\"", "link[0].to", "office"),
        ("from = \"office\"\nto = \"eu-west-1\"", "from = \"office\"\nto = \"office\"", "link[0].to", "itself"),
        ("rtt_ms = 5", "rtt_ms = -5", "link[0].rtt_ms", "0 to 120000"),
        ("rtt_ms = 5", "rtt_ms = nan", "link[0].rtt_ms", "0 to 120000"),
        ("rtt_ms = 5", "rtt_ms = 5\ndelay_ms = 2", "link[0].rtt_ms", "one of"),
        ("rtt_ms = 5", "rtt_ms = 5\none_way = true", "link[0].rtt_ms", "delay_ms"),
        ("rtt_ms = 5", "loss = 0.5", "link", "no site for"),
        ("delay_ms = 40", "delay_ms = 60001", "link[1].delay_ms", "60000"),
        ("delay_ms = 40", "delay_ms = 40\njitter_ms = 41", "link[1].jitter_ms", "at most"),
        ("loss = 0.01", "loss = 1.5", "link[2].loss", "0 to 1"),
        ("rate_kbit = 20000", "rate_kbit = 0", "link[2].rate_kbit", "kilobits"),
        ("source = \"stated: back\"", "source = \"\"", "link[2].source", "one line"),
        ("delay_ms = 40\none_way = true", "delay_ms = 40", "link[2].from", "already"),
        ("delay_ms = 40\none_way = true", "delay_ms = 40\noneway = true", "line 21", "one_way"),
        ("home = \"eu-west-1\"", "", "line 9", "missing field `home`"),
        ("name = \"small\"", "name = small", "line 2", "correct it"),
    ];
    for (from, to, key, hint) in cases {
        assert!(SMALL.contains(from), "{from}");
        let error = parse(&SMALL.replacen(from, to, 1)).unwrap_err();
        let line = error.to_string();
        assert_eq!(error.key, key, "{line}");
        assert!(line.starts_with("t.toml: ") && line.contains(hint) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn a_file_without_regions_is_refused() {
    assert_eq!(parse("name = 'x'").unwrap_err().key, "region");
}

#[test]
fn two_sites_measured_as_one_need_a_stated_link() {
    let text = include_str!("../../../../../regions/three-continents.toml").replace("rtt_ms = 2.0", "loss = 0.0");
    let error = parse(&text).unwrap_err();
    assert!(error.problem.contains("both are measured as ap-southeast-1"), "{error}");
}
