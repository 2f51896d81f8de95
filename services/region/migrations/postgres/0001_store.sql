-- What a region keeps. One commit of the writer is one transaction over these tables.
-- Unsigned numbers are bigint up to 2^63-1; versions are 18 bytes whose order is their order; `body` columns hold what
-- is never queried, in postcard encoding. A dot is (region, incarnation, seq). Long values are stored as they are:
-- they are compressed nowhere, so that a sweep for bytes finds them.

-- Whose store this is; one row.
CREATE TABLE identity (
    singleton            boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (singleton),
    topology_fingerprint text    NOT NULL,
    region               bigint  NOT NULL
);

-- Which API instance writes; one row. `term` is the fencing token: it rises with every change of the holder, and a
-- commit of an earlier term fails. `seen_at` says when the holder last proved that it lives, by the server's clock;
-- `released` that it gave the store up by itself.
CREATE TABLE holder (
    singleton boolean     NOT NULL PRIMARY KEY DEFAULT true CHECK (singleton),
    term      bigint      NOT NULL,
    instance  text        NOT NULL,
    address   text        NOT NULL,
    seen_at   timestamptz NOT NULL,
    released  boolean     NOT NULL
) WITH (fillfactor = 20);

INSERT INTO holder VALUES (true, 0, '', '', clock_timestamp(), true);

-- Small named values: regime, promises, clock bound.
CREATE TABLE meta (
    name  text COLLATE "C" NOT NULL PRIMARY KEY,
    value bytea            NOT NULL
) WITH (fillfactor = 50);

-- How far each timeline is held.
CREATE TABLE position (
    region      bigint NOT NULL,
    incarnation bigint NOT NULL,
    seq         bigint NOT NULL,
    visible     bigint NOT NULL,
    version     bytea  NOT NULL,
    chain       bytea  NOT NULL,
    PRIMARY KEY (region, incarnation)
) WITH (fillfactor = 20);

-- The operation log of every timeline.
CREATE TABLE log (
    region      bigint NOT NULL,
    incarnation bigint NOT NULL,
    seq         bigint NOT NULL,
    body        bytea  NOT NULL,
    PRIMARY KEY (region, incarnation, seq)
);

ALTER TABLE log ALTER COLUMN body SET STORAGE EXTERNAL;

-- The current state of each key; a row without a value is a tombstone.
CREATE TABLE record (
    home    bigint           NOT NULL,
    id      text COLLATE "C" NOT NULL,
    version bytea            NOT NULL,
    body    bytea            NOT NULL,
    value   bytea,
    PRIMARY KEY (home, id)
) WITH (fillfactor = 80);

ALTER TABLE record ALTER COLUMN value SET STORAGE EXTERNAL;

CREATE INDEX record_tombstone ON record (version, home, id) WHERE value IS NULL;

-- Operation ids and what they became. They outlive trimmed log entries, so this is a table of its own.
CREATE TABLE idempotency (
    op_id        bytea            NOT NULL PRIMARY KEY,
    region       bigint           NOT NULL,
    incarnation  bigint           NOT NULL,
    seq          bigint           NOT NULL,
    home         bigint           NOT NULL,
    id           text COLLATE "C" NOT NULL,
    version      bytea            NOT NULL,
    request_hash bigint           NOT NULL
);

-- Finds the ids that point into a truncated tail. Dots rise, so new entries go to the end of the index: cheap.
CREATE INDEX idempotency_dot ON idempotency (region, incarnation, seq);

-- Writes that lost.
CREATE TABLE conflict (
    loser_region       bigint NOT NULL,
    loser_incarnation  bigint NOT NULL,
    loser_seq          bigint NOT NULL,
    winner_region      bigint NOT NULL,
    winner_incarnation bigint NOT NULL,
    winner_seq         bigint NOT NULL,
    home               bigint NOT NULL,
    found_ns           bigint NOT NULL,
    body               bytea  NOT NULL,
    PRIMARY KEY (loser_region, loser_incarnation, loser_seq, winner_region, winner_incarnation, winner_seq)
);

ALTER TABLE conflict ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE INDEX conflict_found ON conflict (found_ns);

-- Operations that were accepted but do not belong to history. `state`: 0 open, 1 merged, 2 discarded.
CREATE TABLE quarantine (
    region      bigint  NOT NULL,
    incarnation bigint  NOT NULL,
    seq         bigint  NOT NULL,
    home        bigint  NOT NULL,
    state       bigint  NOT NULL,
    repaired    boolean NOT NULL,
    body        bytea   NOT NULL,
    PRIMARY KEY (region, incarnation, seq)
);

ALTER TABLE quarantine ALTER COLUMN body SET STORAGE EXTERNAL;

-- Whether a record is waiting to be repaired is asked with every read of an instance that does not write.
CREATE INDEX quarantine_unrepaired ON quarantine (region) WHERE NOT repaired;

-- Anti-entropy buckets; `sum` is 16 bytes, big-endian.
CREATE TABLE digest (
    home   bigint NOT NULL,
    bucket bigint NOT NULL,
    rows   bigint NOT NULL,
    sum    bytea  NOT NULL,
    PRIMARY KEY (home, bucket)
) WITH (fillfactor = 50);
