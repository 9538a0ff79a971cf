-- Times are whole microseconds since 1970-01-01T00:00:00Z, UUIDs are blobs of 16 bytes, JSON is text.
-- Rowid tables with unique indexes: half the work of a primary key that is no integer.

CREATE TABLE connections (
    number              INTEGER PRIMARY KEY,
    target              BLOB NOT NULL CHECK (length(target) = 16),
    guest               BLOB NOT NULL CHECK (length(guest) = 16),
    effective_time_last INTEGER,
    sequence            INTEGER NOT NULL DEFAULT 0,
    -- The newest command applied, or possibly applied: all five or none.
    applied_time        INTEGER,
    applied_command     BLOB,
    applied_archived    INTEGER,
    applied_requester   BLOB,
    applied_certain     INTEGER,
    quiet_until         INTEGER,
    quiet_command       BLOB,
    settle_until        INTEGER,
    suspect_since       INTEGER,
    UNIQUE (target, guest)
) STRICT;

CREATE INDEX connections_suspect ON connections (suspect_since) WHERE suspect_since IS NOT NULL;

CREATE TABLE commands (
    -- Numbers are never given twice, not even after a purge.
    arrival              INTEGER PRIMARY KEY AUTOINCREMENT,
    id                   BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    requester            BLOB NOT NULL CHECK (length(requester) = 16),
    key                  TEXT NOT NULL,
    connection           INTEGER NOT NULL REFERENCES connections (number),
    archived             INTEGER NOT NULL CHECK (archived IN (0, 1)),
    issue_time           INTEGER,
    expire_time          INTEGER,
    door                 TEXT NOT NULL CHECK (door IN ('grpc', 'amqp')),
    traceparent          TEXT,
    tracestate           TEXT,
    correlation_id       TEXT,
    replies              TEXT,
    state                TEXT NOT NULL CHECK (state IN ('accepted', 'in_flight', 'deferred', 'succeeded', 'rejected',
                                                        'superseded', 'failed', 'abandoned')),
    generation           INTEGER NOT NULL,
    epoch                INTEGER NOT NULL,
    attempts             INTEGER NOT NULL,
    maybe_applied        INTEGER NOT NULL CHECK (maybe_applied IN (0, 1)),
    -- Whether no other command of the connection may be begun; follows from state and maybe_applied.
    blocking             INTEGER NOT NULL CHECK (blocking IN (0, 1)),
    waiting              INTEGER NOT NULL CHECK (waiting IN (0, 1)),
    effective_time       INTEGER NOT NULL,
    accepted_time        INTEGER NOT NULL,
    due_time             INTEGER,
    finished_time        INTEGER,
    outcome              TEXT,
    event_id             BLOB,
    event_sequence       INTEGER,
    event_confirmed_time INTEGER,
    UNIQUE (requester, key),
    -- Work that is not done has a time at which recovery takes it up; work that is done has none.
    CHECK ((due_time IS NULL) = (finished_time IS NOT NULL)),
    CHECK ((finished_time IS NOT NULL) = (state NOT IN ('accepted', 'in_flight', 'deferred')))
) STRICT;

-- Two claims on one connection cannot be stored.
CREATE UNIQUE INDEX commands_in_flight ON commands (connection) WHERE state = 'in_flight';
CREATE INDEX commands_blocking ON commands (connection) WHERE blocking = 1;
CREATE INDEX commands_waiting ON commands (connection) WHERE waiting = 1;
CREATE INDEX commands_due ON commands (due_time) WHERE due_time IS NOT NULL;
-- For the purge, and with the state for the books.
CREATE INDEX commands_finished ON commands (finished_time, state) WHERE finished_time IS NOT NULL;

CREATE TABLE outbox (
    -- The relay reads upwards, so a number must never be given twice.
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    command  INTEGER NOT NULL REFERENCES commands (arrival),
    -- The event's id if the message is one.
    event_id BLOB,
    message  TEXT NOT NULL
) STRICT;

CREATE INDEX outbox_command ON outbox (command);

-- One row: what was ever written, against which the counts must balance.
CREATE TABLE totals (
    number           INTEGER PRIMARY KEY CHECK (number = 1),
    registered       INTEGER NOT NULL,
    outbox_written   INTEGER NOT NULL,
    outbox_confirmed INTEGER NOT NULL,
    probe_time       INTEGER
) STRICT;

INSERT INTO totals (number, registered, outbox_written, outbox_confirmed) VALUES (1, 0, 0, 0);
