-- What a region keeps. One commit of the writer is one transaction over these tables.
-- Unsigned numbers are INTEGER up to 2^63-1; versions are 18 bytes whose order is their order; `body` columns hold
-- what is never queried, in postcard encoding. A dot is (region, incarnation, seq).

PRAGMA application_id = 0x6c6f6e67; -- "long"

-- Whose store this is; one row.
CREATE TABLE identity (
    singleton            INTEGER NOT NULL PRIMARY KEY CHECK (singleton = 1),
    topology_fingerprint TEXT    NOT NULL,
    region               INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Small named values: regime, promises, clock bound.
CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- How far each timeline is held.
CREATE TABLE position (
    region      INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    visible     INTEGER NOT NULL,
    version     BLOB    NOT NULL,
    chain       BLOB    NOT NULL,
    PRIMARY KEY (region, incarnation)
) STRICT, WITHOUT ROWID;

-- The operation log of every timeline.
CREATE TABLE log (
    region      INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    body        BLOB    NOT NULL,
    PRIMARY KEY (region, incarnation, seq)
) STRICT, WITHOUT ROWID;

-- The current state of each key; a row without a value is a tombstone.
CREATE TABLE record (
    home    INTEGER NOT NULL,
    id      TEXT    NOT NULL,
    version BLOB    NOT NULL,
    body    BLOB    NOT NULL,
    value   BLOB,
    PRIMARY KEY (home, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX record_tombstone ON record (version) WHERE value IS NULL;

-- Operation ids and what they became. They outlive trimmed log entries, so this is a table of its own.
CREATE TABLE idempotency (
    op_id        BLOB    NOT NULL PRIMARY KEY,
    region       INTEGER NOT NULL,
    incarnation  INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    home         INTEGER NOT NULL,
    id           TEXT    NOT NULL,
    version      BLOB    NOT NULL,
    request_hash INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Finds the ids that point into a truncated tail. Dots rise, so new entries go to the end of the index: cheap.
CREATE INDEX idempotency_dot ON idempotency (region, incarnation, seq);

-- Writes that lost.
CREATE TABLE conflict (
    loser_region       INTEGER NOT NULL,
    loser_incarnation  INTEGER NOT NULL,
    loser_seq          INTEGER NOT NULL,
    winner_region      INTEGER NOT NULL,
    winner_incarnation INTEGER NOT NULL,
    winner_seq         INTEGER NOT NULL,
    home               INTEGER NOT NULL,
    found_ns           INTEGER NOT NULL,
    body               BLOB    NOT NULL,
    PRIMARY KEY (loser_region, loser_incarnation, loser_seq, winner_region, winner_incarnation, winner_seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX conflict_found ON conflict (found_ns);

-- Operations that were accepted but do not belong to history. `state`: 0 open, 1 merged, 2 discarded.
CREATE TABLE quarantine (
    region      INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    home        INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    body        BLOB    NOT NULL,
    PRIMARY KEY (region, incarnation, seq)
) STRICT, WITHOUT ROWID;

-- Anti-entropy buckets; `sum` is 16 bytes, big-endian.
CREATE TABLE digest (
    home   INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    rows   INTEGER NOT NULL,
    sum    BLOB    NOT NULL,
    PRIMARY KEY (home, bucket)
) STRICT, WITHOUT ROWID;
