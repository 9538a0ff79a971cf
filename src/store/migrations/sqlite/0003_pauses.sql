-- Commands that are put off: since when, and for how long before that, in microseconds.
ALTER TABLE commands ADD COLUMN paused_since INTEGER CHECK (paused_since IS NULL OR due_time IS NOT NULL);
ALTER TABLE commands ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
CREATE INDEX commands_paused ON commands (requester, due_time) WHERE paused_since IS NOT NULL;
-- Deferred and in no line.
CREATE INDEX commands_deferred ON commands (requester, due_time) WHERE state = 'deferred' AND waiting = 0;
