-- Who asked for a command first: the principal's name, and the address or the broker's user.
ALTER TABLE commands ADD COLUMN asked_principal TEXT;
ALTER TABLE commands ADD COLUMN asked_address TEXT;

-- Administrative acts. Numbers are never given twice.
CREATE TABLE acts (
    number        INTEGER PRIMARY KEY AUTOINCREMENT,
    time          INTEGER NOT NULL,
    actor         TEXT NOT NULL,
    address       TEXT,
    act           TEXT NOT NULL,
    -- JSON: to what it was done, by ids.
    subject       TEXT NOT NULL,
    finished_time INTEGER,
    -- JSON: what it did, by counts; absent while it is under way, or if it was cut off.
    result        TEXT,
    CHECK ((result IS NULL) = (finished_time IS NULL))
) STRICT;
