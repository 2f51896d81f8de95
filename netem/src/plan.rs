//! The plan of the kernel driver: which `tc` commands make an interface behave as declared. Pure: nothing is run here.
//!
//! Shaping acts on what leaves an interface, so each location shapes its own way to every other one: a classifying root
//! (HTB), one class per destination, and in each class a `netem` queue with delay, jitter, loss and rate. What goes
//! to no listed destination (control, telemetry) passes unshaped.
//!
//! A `netem` queue drops what exceeds its limit, and its default of 1000 packets is less than what a long fast link holds. The
//! limit here is the bandwidth-delay product with room to spare (see [`queue_limit_packets`]).
//!
//! Jitter alone makes `netem` reorder packets whose gap is smaller than it. A queue with a rate keeps their order, so a link
//! with jitter and no limit of its own gets the rate of the fastest one: order is kept, as by the userspace driver. Only
//! what is asked to overtake (`reorder`) does.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use longhaul_core::ids::LocationName;
use longhaul_core::limits;
use longhaul_core::link::{JitterDistribution, LinkError, LinkProfile, LinkState};

/// Rate for which the queue of an unlimited link is made, kilobits a second: 10 Gbit/s.
const ASSUMED_RATE_KBIT: u64 = 10_000_000;
/// Bits of a full Ethernet frame.
const FRAME_BITS: f64 = 1500.0 * 8.0;
/// Smallest queue, packets: netem's own default.
const LIMIT_PACKETS_MIN: u64 = 1000;
/// Largest queue, packets: 2 GB of full frames.
const LIMIT_PACKETS_MAX: u64 = 1_400_000;
/// Priority of the first filter that drops what comes in; two for each location, one per protocol.
const DROP_PRIORITY: usize = 100;
/// ICMPv6 type of a neighbour solicitation (RFC 4861, section 4.3). Both are between hosts of one segment and would be
/// delayed like traffic to the other location: the first exchange would take half a round trip longer.
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement (RFC 4861, section 4.4).
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Most destinations of one interface; keeps all handles apart.
pub const DESTINATIONS_MAX: usize = 0x1000;

/// A network, or one address, at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl FromStr for Subnet {
    type Err = PlanLinkError;

    fn from_str(text: &str) -> Result<Self, PlanLinkError> {
        let bad = || PlanLinkError::Subnet(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), str::parse).map_err(|_| bad())?;
        if prefix > longest { Err(bad()) } else { Ok(Self { address, prefix }) }
    }
}

impl Subnet {
    /// The protocol, the word of `u32` and the priority of its filters.
    fn words(&self) -> (&'static str, &'static str, u16) {
        if self.address.is_ipv4() { ("ip", "ip", 10) } else { ("ipv6", "ip6", 11) }
    }

    /// The address, or the network's.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

impl From<IpAddr> for Subnet {
    fn from(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Another location as this interface reaches it.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// Its name.
    pub name: LocationName,
    /// Where its addresses are.
    pub subnets: Vec<Subnet>,
    /// The link to it.
    pub profile: LinkProfile,
}

/// One `tc` command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The arguments after `tc`.
    pub arguments: Vec<String>,
    /// Whether its failure is fine (it undoes what may not be there).
    pub may_fail: bool,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanLinkError {
    /// The text is no subnet.
    #[error("{0:?} is no address or subnet; use ADDRESS or ADDRESS/PREFIX")]
    Subnet(String),
    /// The interface's name would not survive.
    #[error("{0:?} is no interface name; use 1 to 15 letters, digits, dots, dashes or underscores")]
    Device(String),
    /// A profile is out of bounds.
    #[error("link to {to}: {error}; correct the topology")]
    Profile {
        /// To which location.
        to: LocationName,
        /// What is out of bounds.
        error: LinkError,
    },
    /// A destination without addresses.
    #[error("link to {0}: no address is known; name a subnet of the location")]
    NoSubnet(LocationName),
    /// Nobody by that name.
    #[error("there is no link to {0}; install the plan with this destination first")]
    Unknown(LocationName),
    /// More than there are handles for.
    #[error("{0} destinations are more than {DESTINATIONS_MAX}; leave some out")]
    TooMany(usize),
}

/// The plan of one interface.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    device: String,
    destinations: Vec<Destination>,
}

/// Packets that the queue towards a destination has to hold: what the link carries during the delay (and four deviations
/// of it), a quarter more, and for a limited rate the queue in front of it.
pub fn queue_limit_packets(profile: &LinkProfile) -> u64 {
    let rate_kbit = profile.rate_kbit.unwrap_or(ASSUMED_RATE_KBIT) as f64;
    let mut milliseconds = (profile.delay_ms + 4.0 * profile.jitter_ms) * 1.25;
    if profile.rate_kbit.is_some() {
        milliseconds += limits::LINK_QUEUE.as_secs_f64() * 1000.0;
    }
    // Kilobits a second times milliseconds are bits.
    let packets = (rate_kbit * milliseconds / FRAME_BITS).ceil() as u64;
    packets.clamp(LIMIT_PACKETS_MIN, LIMIT_PACKETS_MAX)
}

impl Plan {
    /// A plan for what leaves `device` towards these destinations.
    pub fn new(device: &str, destinations: Vec<Destination>) -> Result<Self, PlanLinkError> {
        let fits = (1..=15).contains(&device.len()) && !device.starts_with('-');
        if !fits || !device.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(PlanLinkError::Device(device.to_owned()));
        }
        if destinations.len() > DESTINATIONS_MAX {
            return Err(PlanLinkError::TooMany(destinations.len()));
        }
        for destination in &destinations {
            let to = &destination.name;
            destination.profile.validate().map_err(|error| PlanLinkError::Profile { to: to.clone(), error })?;
            if destination.subnets.is_empty() {
                return Err(PlanLinkError::NoSubnet(to.clone()));
            }
        }
        Ok(Self { device: device.to_owned(), destinations })
    }

    /// Brings an unshaped interface to the declared state. What is there must be taken away first ([`Plan::undo`]): HTB's
    /// root cannot be replaced by itself.
    pub fn install(&self) -> Vec<Command> {
        // What is classified nowhere (ARP, control, telemetry) goes to the pseudo class 0: direct and unshaped.
        let mut commands = vec![self.command("qdisc add", "root handle 1: htb default 0")];
        for icmp_type in [NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT] {
            commands.push(self.command(
                "filter add",
                &format!(
                    "parent 1: protocol ipv6 prio 5 u32 match ip6 protocol 58 0xff match u8 {icmp_type} 0xff at 40 \
                     flowid 1:0"
                ),
            ));
        }
        for (index, destination) in self.destinations.iter().enumerate() {
            let class = class(index);
            // Wider than any link, so that only netem shapes. Quantum and burst are given because tc's own guesses are
            // out of bounds at such a rate.
            let rate = "htb rate 10gbit quantum 60000 burst 1m cburst 1m";
            commands.push(self.command("class add", &format!("parent 1: classid {class} {rate}")));
            commands.push(self.queue(index, &destination.profile));
            for subnet in &destination.subnets {
                let (protocol, word, priority) = subnet.words();
                let filter = format!(
                    "parent 1: protocol {protocol} prio {priority} u32 match {word} dst {subnet} flowid {class}"
                );
                commands.push(self.command("filter add", &filter));
            }
        }
        // The hook at which what comes in from a cut location is dropped.
        commands.push(self.command("qdisc add", "clsact"));
        commands
    }

    /// Changes the link to one destination while traffic flows. Running it twice is as good as once. Packets in flight keep
    /// their delay, unless the link is cut: a cut queue is another queue, and the old one is dropped with what it holds.
    pub fn change(&mut self, to: &LocationName, profile: LinkProfile) -> Result<Command, PlanLinkError> {
        profile.validate().map_err(|error| PlanLinkError::Profile { to: to.clone(), error })?;
        let index = self.index(to)?;
        self.destinations[index].profile = profile;
        Ok(self.queue(index, &self.destinations[index].profile))
    }

    /// Drops what comes in from a location, or lets it in again. Running it twice is as good as once.
    pub fn admit(&self, from: &LocationName, admitted: bool) -> Result<Vec<Command>, PlanLinkError> {
        let index = self.index(from)?;
        let mut commands = Vec::new();
        for (place, protocol) in ["ip", "ipv6"].into_iter().enumerate() {
            let mut subnets = self.destinations[index].subnets.iter().filter(|subnet| subnet.words().0 == protocol);
            let priority = DROP_PRIORITY + 2 * index + place;
            let Some(first) = subnets.next() else { continue };
            let undo = self.command("filter del", &format!("ingress protocol {protocol} prio {priority}"));
            commands.push(Command { may_fail: true, ..undo });
            for subnet in std::iter::once(first).chain(subnets).filter(|_| !admitted) {
                let word = subnet.words().1;
                commands.push(self.command(
                    "filter add",
                    &format!("ingress protocol {protocol} prio {priority} u32 match {word} src {subnet} action drop"),
                ));
            }
        }
        Ok(commands)
    }

    /// The interface.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The destinations in the order of their classes.
    pub fn destinations(&self) -> &[Destination] {
        &self.destinations
    }

    /// The class of a destination's traffic, as `tc` shows it.
    pub fn class_of(&self, to: &LocationName) -> Result<String, PlanLinkError> {
        self.index(to).map(class)
    }

    fn index(&self, name: &LocationName) -> Result<usize, PlanLinkError> {
        let found = self.destinations.iter().position(|destination| destination.name == *name);
        found.ok_or_else(|| PlanLinkError::Unknown(name.clone()))
    }

    /// Takes all shaping away.
    pub fn undo(&self) -> Vec<Command> {
        ["root", "clsact"]
            .into_iter()
            .map(|what| Command { may_fail: true, ..self.command("qdisc del", what) })
            .collect()
    }

    fn command(&self, verb: &str, rest: &str) -> Command {
        let words = verb.split(' ').chain(["dev", self.device.as_str()]).chain(rest.split_whitespace());
        Command { arguments: words.map(str::to_owned).collect(), may_fail: false }
    }

    /// The whole line with explicit zeros: a change of a queue keeps what is not named of some of its settings
    /// (reordering, corruption, rate, correlations) and resets others (delay, loss, limit).
    fn queue(&self, index: usize, profile: &LinkProfile) -> Command {
        let microseconds = |milliseconds: f64| (milliseconds * 1000.0).round() as u64;
        let cut = profile.state == LinkState::Cut;
        let handle = 0x100 + 2 * index + usize::from(cut);
        let jitter = microseconds(profile.jitter_ms);
        // Without a jitter there is nothing to correlate, and `netem` refuses a distribution of nothing.
        let (correlation, distribution) = match profile.jitter_distribution {
            _ if jitter == 0 => (0.0, ""),
            JitterDistribution::Normal => (profile.jitter_correlation * 100.0, " distribution normal"),
            JitterDistribution::Pareto => (profile.jitter_correlation * 100.0, " distribution pareto"),
        };
        // What overtakes is sent without the delay; without a delay there is nothing to overtake, and `netem` refuses it.
        let delay = microseconds(profile.delay_ms);
        let reorder = if delay > 0 { profile.reorder * 100.0 } else { 0.0 };
        let loss = if cut { 100.0 } else { profile.loss * 100.0 };
        let rate = match profile.rate_kbit {
            Some(rate_kbit) => format!("{rate_kbit}kbit"),
            // A queue with a rate, whichever, keeps packets in order where jitter alone would not.
            None if jitter > 0 => format!("{ASSUMED_RATE_KBIT}kbit"),
            None => "0bit".to_owned(),
        };
        let text = format!(
            "parent {} handle {handle:x}: netem limit {} delay {delay}us {jitter}us {correlation:.4}%{distribution} loss \
             {loss:.4}% 0% corrupt 0% reorder {reorder:.4}% 0% rate {rate}",
            class(index),
            queue_limit_packets(profile),
        );
        self.command("qdisc replace", &text)
    }
}

fn class(index: usize) -> String {
    format!("1:{:x}", 0x10 + index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> LocationName {
        LocationName::new(text).unwrap()
    }

    fn plan() -> Plan {
        let far = Destination {
            name: name("eu-west-1"),
            subnets: vec!["10.2.0.0/16".parse().unwrap(), "fd00:2::/64".parse().unwrap()],
            profile: LinkProfile::delay(35.254),
        };
        let rough = Destination {
            name: name("london"),
            subnets: vec!["10.9.0.7".parse().unwrap()],
            profile: LinkProfile { jitter_ms: 0.5, loss: 0.0125, rate_kbit: Some(20_000), ..LinkProfile::delay(118.0) },
        };
        Plan::new("eth0", vec![far, rough]).unwrap()
    }

    fn lines(commands: &[Command]) -> Vec<String> {
        commands.iter().map(|command| command.arguments.join(" ")).collect()
    }

    #[test]
    fn an_interface_gets_a_root_and_per_destination_a_class_a_queue_and_filters() {
        assert_eq!(
            lines(&plan().install()),
            [
                "qdisc add dev eth0 root handle 1: htb default 0",
                "filter add dev eth0 parent 1: protocol ipv6 prio 5 u32 match ip6 protocol 58 0xff match u8 135 0xff at 40 \
                 flowid 1:0",
                "filter add dev eth0 parent 1: protocol ipv6 prio 5 u32 match ip6 protocol 58 0xff match u8 136 0xff at 40 \
                 flowid 1:0",
                "class add dev eth0 parent 1: classid 1:10 htb rate 10gbit quantum 60000 burst 1m cburst 1m",
                "qdisc replace dev eth0 parent 1:10 handle 100: netem limit 36723 delay 35254us 0us 0.0000% loss 0.0000% 0% \
                 corrupt 0% reorder 0.0000% 0% rate 0bit",
                "filter add dev eth0 parent 1: protocol ip prio 10 u32 match ip dst 10.2.0.0/16 flowid 1:10",
                "filter add dev eth0 parent 1: protocol ipv6 prio 11 u32 match ip6 dst fd00:2::/64 flowid 1:10",
                "class add dev eth0 parent 1: classid 1:11 htb rate 10gbit quantum 60000 burst 1m cburst 1m",
                "qdisc replace dev eth0 parent 1:11 handle 102: netem limit 1000 delay 118000us 500us 0.0000% distribution \
                 normal loss 1.2500% 0% corrupt 0% reorder 0.0000% 0% rate 20000kbit",
                "filter add dev eth0 parent 1: protocol ip prio 10 u32 match ip dst 10.9.0.7/32 flowid 1:11",
                "qdisc add dev eth0 clsact",
            ]
        );
        assert!(plan().install().iter().all(|command| !command.may_fail));
    }

    #[test]
    fn a_cut_is_another_queue_so_that_what_is_in_flight_is_dropped() {
        let mut plan = plan();
        let cut = LinkProfile { state: LinkState::Cut, ..LinkProfile::delay(10.0) };
        let command = plan.change(&name("london"), cut.clone()).unwrap();
        assert_eq!(
            command.arguments.join(" "),
            "qdisc replace dev eth0 parent 1:11 handle 103: netem limit 10417 delay 10000us 0us 0.0000% loss 100.0000% 0% \
             corrupt 0% reorder 0.0000% 0% rate 0bit"
        );
        assert_eq!(plan.change(&name("london"), cut).unwrap(), command);
        let healed = plan.change(&name("london"), LinkProfile::delay(10.0)).unwrap();
        assert!(healed.arguments.join(" ").contains("handle 102: netem limit 10417 delay 10000us"));
    }

    #[test]
    fn jitter_keeps_the_order_of_packets() {
        let jittery = LinkProfile { jitter_ms: 2.0, ..LinkProfile::delay(10.0) };
        let line = plan().change(&name("london"), jittery).unwrap().arguments.join(" ");
        assert!(
            line.contains("delay 10000us 2000us 0.0000% distribution normal") && line.ends_with("rate 10000000kbit")
        );
    }

    #[test]
    fn jitter_can_be_correlated_and_spread_otherwise() {
        let gusty = LinkProfile {
            jitter_ms: 2.0,
            jitter_distribution: JitterDistribution::Pareto,
            jitter_correlation: 0.25,
            ..LinkProfile::delay(10.0)
        };
        let line = plan().change(&name("london"), gusty.clone()).unwrap().arguments.join(" ");
        assert!(line.contains("delay 10000us 2000us 25.0000% distribution pareto loss"), "{line}");
        let calm = LinkProfile { jitter_ms: 0.0, ..gusty };
        let line = plan().change(&name("london"), calm).unwrap().arguments.join(" ");
        assert!(line.contains("delay 10000us 0us 0.0000% loss"), "{line}");
    }

    #[test]
    fn packets_overtake_only_where_there_is_something_to_overtake() {
        let line = |delay_ms| {
            let profile = LinkProfile { reorder: 0.05, ..LinkProfile::delay(delay_ms) };
            plan().change(&name("london"), profile).unwrap().arguments.join(" ")
        };
        assert!(line(10.0).contains("reorder 5.0000% 0%"));
        assert!(line(0.0).contains("reorder 0.0000% 0%"));
    }

    #[test]
    fn what_comes_in_from_a_location_is_dropped_and_let_in_again() {
        assert_eq!(
            lines(&plan().admit(&name("eu-west-1"), false).unwrap()),
            [
                "filter del dev eth0 ingress protocol ip prio 100",
                "filter add dev eth0 ingress protocol ip prio 100 u32 match ip src 10.2.0.0/16 action drop",
                "filter del dev eth0 ingress protocol ipv6 prio 101",
                "filter add dev eth0 ingress protocol ipv6 prio 101 u32 match ip6 src fd00:2::/64 action drop",
            ]
        );
        let healed = plan().admit(&name("london"), true).unwrap();
        assert_eq!(lines(&healed), ["filter del dev eth0 ingress protocol ip prio 102"]);
        assert!(healed.iter().all(|command| command.may_fail), "nothing may have been dropped");
    }

    #[test]
    fn the_queue_holds_the_bandwidth_delay_product() {
        let profile = |delay_ms, rate_kbit| LinkProfile { rate_kbit, ..LinkProfile::delay(delay_ms) };
        // 10 Gbit/s over 118 ms are 98 333 full frames.
        assert!(queue_limit_packets(&profile(118.0, None)) > 98_333);
        // 1 Gbit/s over 100 ms and a queue of 100 ms are 16 667 full frames.
        assert!(queue_limit_packets(&profile(100.0, Some(1_000_000))) > 16_667);
        assert_eq!(queue_limit_packets(&profile(0.1, Some(100))), LIMIT_PACKETS_MIN);
        assert_eq!(queue_limit_packets(&profile(60_000.0, None)), LIMIT_PACKETS_MAX);
    }

    #[test]
    fn undoing_takes_the_root_away() {
        assert_eq!(lines(&plan().undo()), ["qdisc del dev eth0 root", "qdisc del dev eth0 clsact"]);
    }

    #[test]
    fn what_cannot_be_planned_is_refused() {
        for device in ["", "a name", "-batch", "sixteen-letters-x"] {
            assert_eq!(Plan::new(device, vec![]), Err(PlanLinkError::Device(device.to_owned())));
        }
        for text in ["10.0.0.0/33", "fd00::/129", "here", "10.0.0.1/x", "10.0.0.1/-1"] {
            assert_eq!(text.parse::<Subnet>(), Err(PlanLinkError::Subnet(text.to_owned())));
        }
        let lonely = Destination { name: name("a"), subnets: vec![], profile: LinkProfile::delay(1.0) };
        assert_eq!(Plan::new("eth0", vec![lonely]), Err(PlanLinkError::NoSubnet(name("a"))));
        let unknown = plan().change(&name("mars"), LinkProfile::delay(1.0));
        assert_eq!(unknown, Err(PlanLinkError::Unknown(name("mars"))));
        let wild = plan().change(&name("london"), LinkProfile::delay(-1.0));
        assert!(matches!(wild, Err(PlanLinkError::Profile { .. })));
    }
}
