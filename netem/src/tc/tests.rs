//! The driver against a shell that remembers what it was told.

use std::io;

use futures::future::BoxFuture;

use super::*;

/// What was run, and what the shell answers.
#[derive(Default)]
struct Remembering {
    journal: Mutex<Vec<String>>,
    /// Commands that contain this fail with this complaint.
    refuses: Mutex<Option<(String, String)>>,
    /// How long a command takes.
    slow: Duration,
}

impl Remembering {
    fn lines(&self) -> Vec<String> {
        std::mem::take(&mut self.journal.lock().unwrap())
    }

    fn refuse(&self, what: &str, complaint: &str) {
        *self.refuses.lock().unwrap() = Some((what.to_owned(), complaint.to_owned()));
    }
}

impl Shell for Remembering {
    fn run<'a>(&'a self, program: &'a str, arguments: &'a [String], input: &'a str) -> BoxFuture<'a, io::Result<Ran>> {
        Box::pin(async move {
            tokio::time::sleep(self.slow).await;
            let line = format!("{program} {} {}", arguments.join(" "), input.trim()).trim().to_owned();
            let refused = self.refuses.lock().unwrap().clone().filter(|(what, _)| line.contains(what));
            self.journal.lock().unwrap().push(line);
            let output =
                if program == "ss" { "" } else { "class htb 1:10 root leaf 100:\n Sent 77 bytes 1 pkt\n" }.to_owned();
            let complaint = refused.map(|(_, complaint)| complaint);
            Ok(Ran { success: complaint.is_none(), output, complaint: complaint.unwrap_or_default() })
        })
    }
}

fn name(text: &str) -> LocationName {
    LocationName::new(text).unwrap()
}

fn config() -> TcConfig {
    let destination = |to: &str, address: &str, delay_ms| Destination {
        name: name(to),
        subnets: vec![address.parse().unwrap()],
        profile: LinkProfile::delay(delay_ms),
    };
    TcConfig {
        location: name("a"),
        device: "eth0".to_owned(),
        namespace: Some("ns-a".to_owned()),
        destinations: vec![destination("b", "10.9.0.2", 10.0), destination("c", "fd09::3", 20.0)],
        inbound: [(name("b"), LinkProfile::delay(10.0)), (name("c"), LinkProfile::delay(20.0))].into(),
    }
}

async fn started(shell: &Arc<Remembering>) -> (Tc, CancellationToken) {
    let stop = CancellationToken::new();
    let tc = Tc::start(shell.clone(), config(), stop.clone()).await.unwrap();
    shell.lines();
    (tc, stop)
}

fn cut() -> LinkPatch {
    LinkPatch { state: Some(LinkState::Cut), ..LinkPatch::default() }
}

#[tokio::test]
async fn starting_takes_away_what_was_there_and_installs_in_one_go() {
    let shell = Arc::new(Remembering::default());
    let stop = CancellationToken::new();
    let tc = Tc::start(shell.clone(), config(), stop.clone()).await.unwrap();
    let lines = shell.lines();
    assert_eq!(lines[0], "tc -netns ns-a qdisc del dev eth0 root");
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[2].starts_with("tc -netns ns-a -batch - qdisc add dev eth0 root handle 1: htb"), "{lines:?}");
    stop.cancel();
    tc.join().await;
    assert_eq!(shell.lines(), ["tc -netns ns-a qdisc del dev eth0 root", "tc -netns ns-a qdisc del dev eth0 clsact"]);
}

#[tokio::test]
async fn a_kernel_without_netem_is_named_and_left_unshaped() {
    let shell = Arc::new(Remembering::default());
    shell.refuse("-batch", "Error: Specified qdisc kind is unknown.\nCommand failed -:5\n");
    let refused = Tc::start(shell.clone(), config(), CancellationToken::new()).await;
    assert!(matches!(refused, Err(StartTcError::Tc(TcError::NoNetem))));
    assert_eq!(shell.lines().last().unwrap(), "tc -netns ns-a qdisc del dev eth0 clsact");
}

#[tokio::test]
async fn a_link_is_cut_at_its_beginning_and_dropped_at_its_end() {
    let shell = Arc::new(Remembering::default());
    let (tc, _stop) = started(&shell).await;
    let view = tc.patch("a", "b", &cut()).await.unwrap();
    assert_eq!((view.current.state, view.declared.state), (LinkState::Cut, LinkState::Up));
    let lines = shell.lines();
    assert!(lines.len() == 1 && lines[0].contains("handle 101: netem") && lines[0].contains("loss 100"), "{lines:?}");
    tc.patch("c", "a", &cut()).await.unwrap();
    let lines = shell.lines();
    assert!(lines.last().unwrap().contains("ingress protocol ipv6 prio 103 u32 match ip6 src fd09::3/128 action drop"));
    tc.reset_to_declared().await.unwrap();
    let text = shell.lines().join("\n");
    assert!(text.contains("handle 100: netem") && text.contains("filter del dev eth0 ingress protocol ipv6 prio 103"));
    assert!(!text.contains("action drop"));
    assert_eq!(tc.link("a", "b").unwrap().current, LinkProfile::delay(10.0));
}

#[tokio::test]
async fn a_change_that_changes_nothing_runs_nothing() {
    let shell = Arc::new(Remembering::default());
    let (tc, _stop) = started(&shell).await;
    tc.patch("a", "b", &LinkPatch { delay_ms: Some(10.0), ..LinkPatch::default() }).await.unwrap();
    assert_eq!(shell.lines(), Vec::<String>::new());
    assert!(matches!(tc.patch("b", "c", &cut()).await, Err(PatchLinkError::Unknown { .. })));
    assert!(matches!(tc.patch("a", "d", &cut()).await, Err(PatchLinkError::Unknown { .. })));
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_while_the_tool_runs_run_in_one_go() {
    let shell = Arc::new(Remembering { slow: Duration::from_millis(50), ..Remembering::default() });
    let (tc, _stop) = started(&shell).await;
    let slower = |delay_ms| LinkPatch { delay_ms: Some(delay_ms), ..LinkPatch::default() };
    let (one, two, three) = (slower(11.0), slower(12.0), slower(13.0));
    let changes = [tc.patch("a", "b", &one), tc.patch("a", "c", &two), tc.patch("a", "b", &three)];
    for changed in futures::future::join_all(changes).await {
        changed.unwrap();
    }
    let lines = shell.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines.iter().map(|line| line.matches("netem limit").count()).sum::<usize>(), 3);
    assert!(lines[1].contains("delay 13000us 0us 0.0000% loss 0.0000% 0% corrupt 0% reorder 0.0000% 0% rate 0bit"));
}

#[tokio::test(start_paused = true)]
async fn a_flap_goes_down_and_up_until_it_is_ended() {
    let shell = Arc::new(Remembering::default());
    let (tc, stop) = started(&shell).await;
    tc.patch("a", "b", &LinkPatch { flap_ms: Some(100), ..LinkPatch::default() }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(350)).await;
    let view = tc.link("a", "b").unwrap();
    assert_eq!((view.flap_ms, view.current.state), (Some(100), LinkState::Cut));
    assert_eq!(shell.lines().len(), 3);
    let calm = tc.patch("a", "b", &LinkPatch { flap_ms: Some(0), ..LinkPatch::default() }).await.unwrap();
    assert_eq!((calm.flap_ms, calm.current.state), (None, LinkState::Up));
    assert!(shell.lines()[0].contains("loss 0.0000%"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(shell.lines(), Vec::<String>::new());
    stop.cancel();
    tc.join().await;
}

#[tokio::test]
async fn a_reset_kills_connections_with_that_location_only() {
    let shell = Arc::new(Remembering::default());
    let (tc, _stop) = started(&shell).await;
    tc.patch("a", "b", &LinkPatch { reset: true, ..LinkPatch::default() }).await.unwrap();
    assert_eq!(shell.lines()[0], "ss --net ns-a --kill --tcp --no-header dst 10.9.0.2/32");
}

#[tokio::test]
async fn bytes_are_those_of_the_destinations_class() {
    let shell = Arc::new(Remembering::default());
    let (tc, _stop) = started(&shell).await;
    let bytes = tc.bytes().await.unwrap();
    assert_eq!((bytes[0].to.as_str(), bytes[0].bytes["all"]), ("b", 77));
    assert_eq!((bytes[1].to.as_str(), bytes[1].bytes["all"]), ("c", 0));
}

#[tokio::test]
async fn a_refusal_of_the_kernel_reaches_whoever_asked() {
    let shell = Arc::new(Remembering::default());
    let (tc, _stop) = started(&shell).await;
    shell.refuse("netem", "RTNETLINK answers: Operation not permitted");
    let refused = tc.patch("a", "b", &cut()).await.unwrap_err().to_string();
    assert!(refused.contains("NET_ADMIN"), "{refused}");
}

#[tokio::test]
async fn a_change_that_the_kernel_refuses_is_taken_back() {
    let shell = Arc::new(Remembering::default());
    let (tc, _stop) = started(&shell).await;
    shell.refuse("loss 100", "Error: Invalid argument.\nCommand failed -:1\n");
    let flapping_cut = LinkPatch { flap_ms: Some(100), ..cut() };
    let refused = tc.patch("a", "b", &flapping_cut).await.unwrap_err().to_string();
    assert!(refused.starts_with("the link from a to b is as it was") && !refused.contains('\n'), "{refused}");
    let view = tc.link("a", "b").unwrap();
    assert_eq!((view.current, view.flap_ms), (LinkProfile::delay(10.0), None));
    let lines = shell.lines();
    assert!(
        lines.len() == 2 && lines[1].contains("handle 100: netem") && lines[1].contains("loss 0.0000%"),
        "{lines:?}"
    );
    // Nothing of it is in the way of what comes after.
    tc.patch("a", "b", &LinkPatch { delay_ms: Some(11.0), ..LinkPatch::default() }).await.unwrap();
    assert_eq!(shell.lines().len(), 1);
}

#[tokio::test]
async fn a_link_that_cannot_be_put_back_is_named_and_put_in_force_with_the_next_change() {
    let shell = Arc::new(Remembering::default());
    let (tc, _stop) = started(&shell).await;
    shell.refuse("netem", "Error: Invalid argument.\nCommand failed -:1\n");
    let refused = tc.patch("a", "b", &cut()).await.unwrap_err().to_string();
    assert!(refused.starts_with("the link from a to b may be half changed"), "{refused}");
    *shell.refuses.lock().unwrap() = None;
    shell.lines();
    tc.patch("a", "c", &cut()).await.unwrap();
    let lines = shell.lines();
    assert!(
        lines.len() == 1 && lines[0].contains("handle 100: netem") && lines[0].contains("handle 103: netem"),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_behind_a_change_that_fails_is_not_told_that_it_is_in_force() {
    let shell = Arc::new(Remembering { slow: Duration::from_millis(50), ..Remembering::default() });
    let (tc, _stop) = started(&shell).await;
    shell.refuse("loss 100", "Error: Invalid argument.\nCommand failed -:1\n");
    let slower = |delay_ms| LinkPatch { delay_ms: Some(delay_ms), ..LinkPatch::default() };
    let (slow, slower, cut) = (slower(12.0), slower(13.0), cut());
    // The first takes its turn at once; the other two run in one go, which fails for one of them.
    let (first, bad, good) =
        tokio::join!(tc.patch("a", "c", &slow), tc.patch("a", "b", &cut), tc.patch("a", "c", &slower));
    assert!(first.is_ok() && bad.is_err());
    let text = shell.lines().join("\n");
    match good {
        Ok(_) => assert!(text.trim_end().contains("delay 13000us")),
        Err(error) => assert!(error.to_string().contains("is as it was"), "{error}"),
    }
    assert_eq!(tc.link("a", "b").unwrap().current, LinkProfile::delay(10.0));
}
