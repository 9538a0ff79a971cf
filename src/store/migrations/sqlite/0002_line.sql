-- The line of a connection: commands that are begun in order of arrival. Follows from state and waiting.
ALTER TABLE commands ADD COLUMN in_line INTEGER NOT NULL DEFAULT 0 CHECK (in_line IN (0, 1));
UPDATE commands SET in_line = 1 WHERE due_time IS NOT NULL AND (state = 'accepted' OR waiting = 1);
CREATE INDEX commands_in_line ON commands (connection, arrival) WHERE in_line = 1;
DROP INDEX commands_waiting;

-- When a suspect connection is to be healed.
ALTER TABLE connections ADD COLUMN heal_time INTEGER;
UPDATE connections SET heal_time = suspect_since WHERE suspect_since IS NOT NULL;
DROP INDEX connections_suspect;
CREATE INDEX connections_heal ON connections (heal_time) WHERE heal_time IS NOT NULL;
