//! Names of spans and attributes. Whatever is not here follows OpenTelemetry's semantic conventions.
//!
//! No name stands for the id or the value of a record: under `regional-isolation` traces cross borders that records
//! must not.

/// Names of spans.
pub mod span {
    /// A request at a server, named `METHOD route` when exported.
    pub const SERVER: &str = "http.server";
    /// A user's request on its way through a gateway.
    pub const GATEWAY_REQUEST: &str = "gateway.request";
    /// One attempt of a gateway at one region.
    pub const GATEWAY_ATTEMPT: &str = "gateway.attempt";
    /// A group commit.
    pub const REGION_COMMIT: &str = "region.commit";
    /// A write that waits for its durability.
    pub const REGION_ACK_WAIT: &str = "region.ack_wait";
}

/// Names of attributes.
pub mod attribute {
    /// The span's own ids as a `traceparent`: the exported span has exactly these. Not exported.
    pub const CONTEXT: &str = "longhaul.context";
    /// The parent in another process, as a `traceparent`. Not exported.
    pub const PARENT: &str = "longhaul.parent";
    /// Spans that this one has to do with, as `traceparent`s with commas between them. Exported as links.
    pub const LINKS: &str = "longhaul.links";
    /// The role of the process.
    pub const ROLE: &str = "longhaul.role";
    /// A region, by name.
    pub const REGION: &str = "longhaul.region";
    /// The home of a record, by name.
    pub const HOME: &str = "longhaul.home";
    /// The epoch of a regime.
    pub const EPOCH: &str = "longhaul.epoch";
    /// An error code.
    pub const CODE: &str = "longhaul.code";
}

#[cfg(test)]
mod tests {
    use super::attribute;

    #[test]
    fn every_own_attribute_has_our_prefix() {
        let own = [
            attribute::CONTEXT,
            attribute::PARENT,
            attribute::LINKS,
            attribute::ROLE,
            attribute::REGION,
            attribute::HOME,
            attribute::EPOCH,
            attribute::CODE,
        ];
        assert!(own.iter().all(|name| name.starts_with("longhaul.")));
    }
}
