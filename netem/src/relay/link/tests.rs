use super::*;

const MS: u64 = 1_000_000;

fn link(profile: LinkProfile) -> DirectedLink {
    DirectedLink::new(LocationName::new("a").unwrap(), LocationName::new("b").unwrap(), profile, 7)
}

fn patch(change: impl FnOnce(&mut LinkPatch)) -> LinkPatch {
    let mut patch = LinkPatch::default();
    change(&mut patch);
    patch
}

#[test]
fn a_clean_link_adds_its_delay_and_keeps_order() {
    let (out, back) = (link(LinkProfile::delay(35.25)), link(LinkProfile::delay(10.0)));
    assert_eq!(out.send(5 * MS, 1000, 0, &back).unwrap().at_ns, 40_250_000);
    assert_eq!(out.send(5 * MS, 1000, 60 * MS, &back).unwrap().at_ns, 60 * MS);
}

#[test]
fn a_rate_is_shared_by_all_connections_and_bounds_the_queue() {
    let out = link(LinkProfile { rate_kbit: Some(8000), ..LinkProfile::delay(0.0) });
    let back = link(LinkProfile::delay(0.0));
    // 8 Mbit/s is one byte a microsecond.
    let arrivals: Vec<u64> = (0..3).map(|_| out.send(MS, 10_000, 0, &back).unwrap().at_ns).collect();
    assert_eq!(arrivals, [11 * MS, 21 * MS, 31 * MS]);
    assert_eq!(out.queue_wait_ns(MS), 0);
    out.send(MS, 120_000, 0, &back).unwrap();
    assert_eq!(out.queue_wait_ns(MS), 50 * MS);
    assert_eq!(out.chunk_bytes(65_536), 5000);
    out.patch(&patch(|patch| patch.rate_kbit = Some(0)));
    assert_eq!(out.queue_wait_ns(MS), 0);
    assert_eq!(out.send(MS, 10_000, 0, &back).unwrap().at_ns, MS);
}

#[test]
fn jitter_has_the_declared_mean_and_deviation() {
    let out = link(LinkProfile { jitter_ms: 3.0, ..LinkProfile::delay(50.0) });
    let back = link(LinkProfile::delay(0.0));
    let delays: Vec<f64> = (0..20_000).map(|_| out.send(0, 100, 0, &back).unwrap().at_ns as f64 / 1e6).collect();
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    let deviation = (delays.iter().map(|delay| (delay - mean).powi(2)).sum::<f64>() / delays.len() as f64).sqrt();
    assert!((mean - 50.0).abs() < 0.1, "mean {mean}");
    assert!((deviation - 3.0).abs() < 0.1, "deviation {deviation}");
}

#[test]
fn a_loss_costs_a_retransmission_timeout_as_often_as_declared() {
    let out = link(LinkProfile { loss: 0.05, ..LinkProfile::delay(150.0) });
    let back = link(LinkProfile::delay(100.0));
    let sends = 20_000;
    let stalled = (0..sends)
        .filter(|_| {
            let at_ns = out.send(0, 100, 0, &back).unwrap().at_ns;
            assert!(at_ns == 150 * MS || at_ns >= (150 + 250) * MS, "{at_ns}");
            at_ns > 150 * MS
        })
        .count();
    let share = stalled as f64 / f64::from(sends);
    assert!((share - 0.05).abs() < 0.006, "share {share}");
}

#[test]
fn the_timeout_is_at_least_200_ms() {
    let out = link(LinkProfile { loss: 1.0 - 1e-9, ..LinkProfile::delay(1.0) });
    let back = link(LinkProfile::delay(1.0));
    assert_eq!(out.timeout_ns(&back), 200 * MS);
    assert_eq!(out.send(0, 100, 0, &back), None, "every retransmission is lost as well");
}

#[test]
fn the_same_seed_draws_the_same_arrivals() {
    let draw = || {
        let out = link(LinkProfile { jitter_ms: 2.0, loss: 0.1, ..LinkProfile::delay(20.0) });
        let back = link(LinkProfile::delay(20.0));
        (0..100).map(|_| out.send(0, 3000, 0, &back).map(|ticket| ticket.at_ns)).collect::<Vec<_>>()
    };
    assert_eq!(draw(), draw());
}

#[test]
fn a_cut_loses_what_is_in_flight_even_if_it_heals_before_the_arrival() {
    let (out, back) = (link(LinkProfile::delay(100.0)), link(LinkProfile::delay(100.0)));
    let before = out.send(0, 10, 0, &back).unwrap();
    assert!(out.arrives(before));
    out.patch(&patch(|patch| patch.state = Some(LinkState::Cut)));
    assert_eq!(out.send(0, 10, 0, &back), None);
    out.patch(&patch(|patch| patch.state = Some(LinkState::Up)));
    assert!(!out.arrives(before));
    assert!(out.arrives(out.send(0, 10, 0, &back).unwrap()));
}

#[test]
fn a_state_ends_a_flap_and_a_flap_ends_at_zero() {
    let out = link(LinkProfile::delay(1.0));
    let flap = patch(|patch| patch.flap_ms = Some(500));
    let FlapChange::Start(500, first) = out.patch(&flap) else { panic!("no flap") };
    assert_eq!(out.view().flap_ms, Some(500));
    assert!(out.flap_to(LinkState::Cut, &first));
    assert!(matches!(out.patch(&patch(|patch| patch.flap_ms = Some(0))), FlapChange::Keep));
    assert!(first.is_cancelled() && !out.flap_to(LinkState::Cut, &first));
    assert_eq!((out.view().flap_ms, out.view().current.state), (None, LinkState::Up));
    let FlapChange::Start(_, second) = out.patch(&flap) else { panic!("no flap") };
    out.patch(&patch(|patch| patch.state = Some(LinkState::Cut)));
    assert!(second.is_cancelled());
    assert_eq!(out.view().current.state, LinkState::Cut);
}

#[test]
fn healing_goes_back_to_what_was_declared() {
    let declared = LinkProfile { jitter_ms: 1.0, ..LinkProfile::delay(20.0) };
    let out = link(declared.clone());
    out.patch(&patch(|patch| {
        patch.delay_ms = Some(300.0);
        patch.loss = Some(0.2);
        patch.rate_kbit = Some(100);
        patch.state = Some(LinkState::Cut);
    }));
    assert_ne!(out.view().current, declared);
    out.heal();
    assert_eq!(out.view().current, declared);
}
