//! What links tell in figures: bytes by cause, and how each link is now.

use longhaul_core::link::LinkState;
use longhaul_http::metrics::{Page, Source};

use crate::agent::Links;
use crate::relay::Relay;

impl Source for Relay {
    fn collect(&self, page: &mut Page) {
        for link in self.bytes() {
            for (cause, bytes) in &link.bytes {
                let labels = [("from", link.from.as_str()), ("to", link.to.as_str()), ("cause", cause.as_str())];
                page.counter("longhaul.link.io", "Bytes delivered over the link.", "By", &labels, *bytes);
            }
        }
        for link in self.links() {
            let labels = [("from", link.from.as_str()), ("to", link.to.as_str())];
            let up = f64::from(u8::from(link.current.state == LinkState::Up));
            page.gauge("longhaul.link.up", "Whether the link delivers.", "{link}", &labels, up);
            let delay_s = link.current.delay_ms / 1e3;
            page.gauge("longhaul.link.delay", "One-way delay of the link.", "s", &labels, delay_s);
            page.gauge("longhaul.link.loss", "Share of chunks lost on the link.", "1", &labels, link.current.loss);
            let help = "Open connections that send over the link.";
            page.gauge("longhaul.link.connections", help, "{connection}", &labels, f64::from(link.connections));
            let help = "Open connections that lost bytes on the link and are dead.";
            page.gauge(
                "longhaul.link.dead_connections",
                help,
                "{connection}",
                &labels,
                f64::from(link.dead_connections),
            );
        }
    }
}

impl Source for Links {
    fn collect(&self, page: &mut Page) {
        // What the kernel counts is asked of it by the agent's own interface, and not from here: that takes a process.
        if let Self::Relay(relay) = self {
            relay.collect(page);
        }
    }
}
