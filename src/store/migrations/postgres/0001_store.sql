-- Times are whole microseconds since 1970-01-01T00:00:00Z, as in the embedded store; JSON is text, kept to the letter.

CREATE TABLE connections (
    number              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target              UUID NOT NULL,
    guest               UUID NOT NULL,
    effective_time_last BIGINT,
    sequence            BIGINT NOT NULL DEFAULT 0,
    -- The newest command applied, or possibly applied: all five or none.
    applied_time        BIGINT,
    applied_command     UUID,
    applied_archived    BOOLEAN,
    applied_requester   UUID,
    applied_certain     BOOLEAN,
    quiet_until         BIGINT,
    quiet_command       UUID,
    settle_until        BIGINT,
    suspect_since       BIGINT,
    heal_time           BIGINT,
    UNIQUE (target, guest)
) WITH (fillfactor = 80);

CREATE INDEX connections_heal ON connections (heal_time) WHERE heal_time IS NOT NULL;

-- Numbers are never given twice. Within a connection they follow the order of acceptance: they are taken under its lock.
CREATE SEQUENCE commands_arrival AS BIGINT;

CREATE TABLE commands (
    arrival              BIGINT PRIMARY KEY,
    id                   UUID NOT NULL UNIQUE,
    requester            UUID NOT NULL,
    key                  TEXT NOT NULL,
    connection           BIGINT NOT NULL REFERENCES connections (number),
    archived             BOOLEAN NOT NULL,
    issue_time           BIGINT,
    expire_time          BIGINT,
    door                 TEXT NOT NULL CHECK (door IN ('grpc', 'amqp')),
    asked_principal      TEXT,
    asked_address        TEXT,
    traceparent          TEXT,
    tracestate           TEXT,
    correlation_id       TEXT,
    replies              TEXT,
    state                TEXT NOT NULL CHECK (state IN ('accepted', 'in_flight', 'deferred', 'succeeded', 'rejected',
                                                        'superseded', 'failed', 'abandoned')),
    generation           BIGINT NOT NULL,
    epoch                BIGINT NOT NULL,
    attempts             BIGINT NOT NULL,
    maybe_applied        BOOLEAN NOT NULL,
    -- Whether no other command of the connection may be begun; follows from state and maybe_applied.
    blocking             BOOLEAN NOT NULL,
    waiting              BOOLEAN NOT NULL,
    -- Whether it stands in the line of its connection; follows from state and waiting.
    in_line              BOOLEAN NOT NULL,
    effective_time       BIGINT NOT NULL,
    accepted_time        BIGINT NOT NULL,
    due_time             BIGINT,
    paused_since         BIGINT,
    paused               BIGINT NOT NULL,
    finished_time        BIGINT,
    outcome              TEXT,
    event_id             UUID,
    event_sequence       BIGINT,
    event_confirmed_time BIGINT,
    UNIQUE (requester, key),
    -- Work that is not done has a time at which recovery takes it up; work that is done has none.
    CHECK ((due_time IS NULL) = (finished_time IS NOT NULL)),
    CHECK ((finished_time IS NOT NULL) = (state NOT IN ('accepted', 'in_flight', 'deferred'))),
    CHECK (paused_since IS NULL OR due_time IS NOT NULL)
) WITH (fillfactor = 80);

-- Two claims on one connection cannot be stored.
CREATE UNIQUE INDEX commands_in_flight ON commands (connection) WHERE state = 'in_flight';
CREATE INDEX commands_blocking ON commands (connection) WHERE blocking;
CREATE INDEX commands_in_line ON commands (connection, arrival) WHERE in_line;
CREATE INDEX commands_due ON commands (due_time, arrival) WHERE due_time IS NOT NULL;
CREATE INDEX commands_finished ON commands (finished_time) WHERE finished_time IS NOT NULL;
CREATE INDEX commands_paused ON commands (requester, due_time) WHERE paused_since IS NOT NULL;
CREATE INDEX commands_deferred ON commands (requester, due_time) WHERE state = 'deferred' AND NOT waiting;

-- A claim is fenced by its epoch: it only rises, and only with a new claim.
CREATE FUNCTION commands_fence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the epoch of a command may not fall (arrival %)', OLD.arrival USING ERRCODE = 'check_violation';
END
$$;

CREATE TRIGGER commands_fence BEFORE UPDATE ON commands
    FOR EACH ROW WHEN (NEW.epoch < OLD.epoch) EXECUTE FUNCTION commands_fence();

-- Ends a transaction that would write over somebody else's claim; it is made anew.
CREATE FUNCTION commands_overtaken() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a command was changed by another instance in the midst of a change'
        USING ERRCODE = 'serialization_failure';
END
$$;

CREATE TABLE outbox (
    number     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    command    BIGINT NOT NULL REFERENCES commands (arrival),
    -- That of the command; modulo 64 it is the slot.
    connection BIGINT NOT NULL,
    -- The event's id if the message is one.
    event_id   UUID,
    message    TEXT NOT NULL
);

CREATE INDEX outbox_events ON outbox (connection, number) WHERE event_id IS NOT NULL;

CREATE INDEX outbox_command ON outbox (command);

-- The instances that use the database. One whose lease has run out is removed by any other.
CREATE TABLE instances (
    id          UUID PRIMARY KEY,
    version     TEXT NOT NULL,
    lease_until TIMESTAMPTZ NOT NULL
);

-- Who publishes what of the outbox. With an instance goes what it holds.
CREATE TABLE outbox_slots (
    slot  SMALLINT PRIMARY KEY,
    owner UUID REFERENCES instances (id) ON DELETE SET NULL
);

INSERT INTO outbox_slots (slot) SELECT generate_series(0, 63);

-- What was ever written, against which the counts must balance: the sum of all rows. Each writer has one of its own, so that
-- no two wait for one another.
CREATE TABLE totals (
    writer           UUID PRIMARY KEY,
    registered       BIGINT NOT NULL DEFAULT 0,
    outbox_written   BIGINT NOT NULL DEFAULT 0,
    outbox_confirmed BIGINT NOT NULL DEFAULT 0,
    probe_time       BIGINT
);

-- Administrative acts.
CREATE TABLE acts (
    number        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time          BIGINT NOT NULL,
    actor         TEXT NOT NULL,
    address       TEXT,
    act           TEXT NOT NULL,
    subject       TEXT NOT NULL,
    finished_time BIGINT,
    result        TEXT,
    CHECK ((result IS NULL) = (finished_time IS NULL))
);
