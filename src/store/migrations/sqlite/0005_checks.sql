-- The same checks in other words: for a list of more than two SQLite fills a table at every insert and update, which took as long
-- as all else that these do. What is kept is not touched (https://sqlite.org/lang_altertable.html#otheralter).
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(replace(sql,
    '(state IN (''accepted'', ''in_flight'', ''deferred'', ''succeeded'', ''rejected'',
                                                        ''superseded'', ''failed'', ''abandoned''))',
    '(state = ''in_flight'' OR state = ''succeeded'' OR state = ''accepted'' OR state = ''deferred'' OR state = ''rejected''
                                                      OR state = ''superseded'' OR state = ''failed'' OR state = ''abandoned'')'),
    '((finished_time IS NOT NULL) = (state NOT IN (''accepted'', ''in_flight'', ''deferred'')))',
    '((finished_time IS NULL) = (state = ''in_flight'' OR state = ''accepted'' OR state = ''deferred''))')
    WHERE type = 'table' AND name = 'commands';
-- Reads the schema anew.
PRAGMA writable_schema = RESET;
