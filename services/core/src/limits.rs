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
/// Most operations of the own timeline that are logged and wait for followers; one more write is refused as not
/// accepted. Clients give up waiting before their operations do, so that this is more than [`WRITE_QUEUE_MAX`].
pub const UNAPPLIED_MAX: usize = 16_384;
/// Most writes in one commit.
pub const COMMIT_BATCH_MAX: usize = 256;

/// Most operations in one replication frame.
pub const BATCH_OPERATIONS_MAX: usize = 512;
/// Most bytes of operations in one replication frame (a single larger operation still travels alone).
pub const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Largest frame that a peer may send, in bytes.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of operations that may be in flight to one peer without an acknowledgement: at least the bandwidth-delay
/// product of the longest link (4 MiB = 100 Mbit/s over 335 ms).
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
/// Most automatic failovers in an hour.
pub const FAILOVERS_PER_HOUR: usize = 3;
/// How long the next best placed region waits before it tries a failover in its turn.
pub const PROPOSER_STAGGER: Duration = Duration::from_millis(400);
/// How long a region leaves another one's attempt at a failover alone, from when it first saw it. An attempt waits for the
/// old primary's lease to run out and takes a few round trips; a second one in the middle of it makes both begin anew.
pub const PROPOSER_PATIENCE: Duration = Duration::from_millis(1500);
/// Largest lag of the target when a planned switchover starts.
pub const SWITCHOVER_LAG_MAX: Duration = Duration::from_secs(1);
/// Most operations by which the target may lag when a planned switchover starts.
pub const SWITCHOVER_LAG_OPERATIONS_MAX: u64 = 10_000;

/// Deadline of a user's request, from its intended start.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(2);
/// How long a gateway holds a write through a planned switchover.
pub const GATEWAY_HOLD: Duration = Duration::from_secs(5);
/// Most requests that a gateway has open at a time, held ones included.
pub const GATEWAY_REQUESTS_MAX: usize = 16_384;
/// Regimes whose adoption a gateway remembers.
pub const GATEWAY_ADOPTED_MAX: usize = 256;
/// How often a gateway asks each region for its regime, which is also its health check.
pub const GATEWAY_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Deadline of opening a connection across a link.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Deadline of opening a connection to a region's database.
pub const STORE_CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Deadline of one statement and of one commit in a region's database. Beyond it the outcome is unknown, and the region
/// reads again what is durable before it goes on.
pub const STORE_DEADLINE: Duration = Duration::from_secs(10);
/// How long an instance of a region may answer for its region after it last proved to the database that it lives. The
/// next holder of the store answers nothing before.
pub const STORE_HOLD: Duration = Duration::from_secs(1);
/// How often the holder of a store proves that it lives.
pub const STORE_HOLD_RENEW: Duration = Duration::from_millis(200);
/// How often an instance that does not hold the store tries to.
pub const STORE_LOCK_POLL: Duration = Duration::from_millis(100);
/// A holder that has been silent for this long is ended, although its session still lives (a paused process, a lost
/// host).
pub const STORE_HOLDER_SILENCE: Duration = Duration::from_millis(2500);
/// Within this time after the holder was killed, paused or cut off, another instance writes (its parts: silence until it
/// is noticed, sessions to end, [`STORE_HOLD`], recovery, the lease).
pub const STORE_TAKEOVER: Duration = Duration::from_secs(5);

/// Log entries kept per timeline although every member has them (they explain a drill afterwards).
pub const LOG_RETAINED_MIN: u64 = 200_000;
/// Anti-entropy buckets per home.
pub const DIGEST_BUCKETS: u16 = 256;
/// Silence of a member after which a `sync` primary asks the regime to leave it out.
pub const IN_SYNC_TIMEOUT: Duration = Duration::from_secs(3);

/// Events that control keeps for those who ask later.
pub const EVENTS_KEPT_MAX: usize = 2000;
/// Events that a follower of control's stream may be behind before it misses some.
pub const EVENT_STREAM_MAX: usize = 256;
/// Faults that control remembers; the oldest healed ones are forgotten first.
pub const FAULTS_KEPT_MAX: usize = 500;
/// Drills that control remembers, with their reports.
pub const DRILLS_KEPT_MAX: usize = 50;
/// Deadline of one question of control to a role, out of band.
pub const CONTROL_DEADLINE: Duration = Duration::from_secs(2);
/// How often control looks at every region for what to tell in its events.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// Most operations of one edge's users in flight at once; one more is recorded as failed without being sent.
pub const USERS_IN_FLIGHT_MAX: usize = 4096;
/// Most finished operations that wait to be written into the ledger.
pub const LEDGER_QUEUE_MAX: usize = 16_384;
/// Most operations of one run, warm-up included (they are kept in memory).
pub const LEDGER_OPERATIONS_MAX: u32 = 2_000_000;

/// Bytes that one connection may have in flight in one direction of a userspace link: at least the bandwidth-delay product
/// of the longest link (32 MiB = 100 MB/s over 320 ms).
pub const RELAY_IN_FLIGHT_BYTES: usize = 32 * 1024 * 1024;
/// Chunks that one connection may have in flight in one direction of a userspace link.
pub const RELAY_IN_FLIGHT_CHUNKS: usize = 8192;
/// Most connections open over all userspace links of one process; one more waits to be accepted.
pub const RELAY_CONNECTIONS_MAX: usize = 4096;
/// How much a rate-limited link queues before it stops taking bytes, as time to send them.
pub const LINK_QUEUE: Duration = Duration::from_millis(100);
