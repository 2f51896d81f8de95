//! Every bound of the system, by name and in one place.

use std::time::Duration;

/// Longest record id, in bytes.
pub const RECORD_ID_BYTES_MAX: usize = 128;
/// Largest record value, in bytes of JSON text.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Largest session token, in bytes of text.
pub const SESSION_TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Most timelines that a version vector may name.
pub const VECTOR_TIMELINES_MAX: usize = 1024;
/// Most regions in a topology.
pub const REGIONS_MAX: usize = 64;
/// Most edges in a topology.
pub const EDGES_MAX: usize = 64;
/// Most steps in a drill.
pub const DRILL_STEPS_MAX: usize = 1000;

/// Most writes that wait for the writer task; one more is refused as not accepted.
pub const WRITE_QUEUE_MAX: usize = 4096;
/// Most writes in one commit.
pub const COMMIT_BATCH_MAX: usize = 256;

/// Most operations in one replication frame.
pub const BATCH_OPERATIONS_MAX: usize = 512;
/// Most bytes of operations in one replication frame (a single larger operation still travels alone).
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Largest frame that a peer may send, in bytes.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of operations that may be in flight to one peer without an acknowledgement: at least the bandwidth-delay
/// product of the longest link (4 MiB = 100 Mbit/s over 320 ms).
pub const CREDIT_BYTES: usize = 4 * 1024 * 1024;

/// How often a replication stream says that it lives.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);
/// How often an idle timeline appends a no-op, which moves the stability frontier.
pub const NOOP_INTERVAL: Duration = Duration::from_secs(1);
/// Silence of the primary after which a region suspects it (six heartbeats).
pub const SUSPECT_AFTER: Duration = Duration::from_millis(1500);
/// A timeline whose direct link made no progress for this long is fetched through a third region.
pub const RELAY_AFTER: Duration = Duration::from_secs(2);

/// How long a voter's lease grant lasts.
pub const LEASE: Duration = Duration::from_secs(2);
/// How often the primary renews its lease.
pub const LEASE_RENEW_INTERVAL: Duration = Duration::from_millis(500);
/// The primary treats its lease as expired this much earlier than the voters do (clock rate error and scheduling).
pub const LEASE_MARGIN: Duration = Duration::from_millis(100);

/// Largest amount by which a remote version may be ahead of the local clock.
pub const CLOCK_OFFSET_MAX: Duration = Duration::from_millis(500);
/// Largest logical counter in a version.
pub const CLOCK_COUNT_MAX: u32 = 1 << 24;
/// How far ahead of the wall clock the persisted upper bound of the hybrid logical clock is written.
pub const CLOCK_UPPER_AHEAD: Duration = Duration::from_secs(3);

/// How long a write waits for its durability before the answer is `ack_timeout` (unknown outcome).
pub const ACK_DEADLINE: Duration = Duration::from_secs(3);
/// How long a read with a session token waits for the region to catch up.
pub const SESSION_WAIT: Duration = Duration::from_millis(300);
/// Deadline of one regime message (prepare, accept, lease) to one voter.
pub const VOTE_DEADLINE: Duration = Duration::from_millis(1000);
/// Deadline of a whole planned transition; beyond it the transition rolls back.
pub const TRANSITION_DEADLINE: Duration = Duration::from_secs(10);
/// No second automatic failover within this time.
pub const FAILOVER_DWELL: Duration = Duration::from_secs(60);

/// Deadline of a user's request, from its intended start.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(2);
/// How long a gateway holds a write through a planned switchover.
pub const GATEWAY_HOLD: Duration = Duration::from_secs(5);
/// Deadline of opening a connection across a link.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Log entries kept per timeline although every member has them (they explain a drill afterwards).
pub const LOG_RETAINED_MIN: u64 = 200_000;
/// Anti-entropy buckets per home.
pub const DIGEST_BUCKETS: u16 = 256;
/// Silence of a member after which a `sync` primary asks the regime to leave it out.
pub const IN_SYNC_TIMEOUT: Duration = Duration::from_secs(3);
