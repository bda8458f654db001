-- Version 5. Records lie in the order of a number: that of their run times 2^32, plus their place. So an append writes the
-- end of the table and nothing else, and finding its place reads no other record, however long that one is. The hash
-- before a record is that of the record before it; it is kept once.
CREATE TABLE numbered_runs (
    number     INTEGER PRIMARY KEY,
    run        TEXT    NOT NULL UNIQUE,
    runbook    TEXT    NOT NULL,
    version    TEXT    NOT NULL,
    site       TEXT    NOT NULL,
    started_by TEXT    NOT NULL,
    started_ms INTEGER NOT NULL,
    outcome    TEXT
);

INSERT INTO numbered_runs (run, runbook, version, site, started_by, started_ms, outcome)
SELECT run, runbook, version, site, started_by, started_ms, outcome FROM runs ORDER BY started_ms, run;

-- Records whose run is in no index are records all the same.
INSERT INTO numbered_runs (run, runbook, version, site, started_by, started_ms)
SELECT run, '', '', '', '', min(at_ms) FROM events WHERE run NOT IN (SELECT run FROM runs) GROUP BY run ORDER BY run;

CREATE TABLE numbered_events (
    id         INTEGER PRIMARY KEY,
    at_ms      INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    payload    TEXT    NOT NULL,
    hash       TEXT    NOT NULL
);

INSERT INTO numbered_events
SELECT r.number * 4294967296 + e.seq, e.at_ms, e.generation, e.kind, e.payload, e.hash
FROM numbered_runs r JOIN events e ON e.run = r.run ORDER BY 1;

DROP TABLE events;

DROP TABLE runs;

ALTER TABLE numbered_events RENAME TO events;

ALTER TABLE numbered_runs RENAME TO runs;

CREATE INDEX events_finished ON events (at_ms) WHERE kind = 'run_finished';

CREATE INDEX runs_started ON runs (started_ms);

-- For people and their tools; Piton itself reads the tables.
CREATE VIEW records AS
SELECT r.run, e.id & 4294967295 AS seq, e.at_ms, e.generation, e.kind, e.payload,
       coalesce(before.hash, '0000000000000000000000000000000000000000000000000000000000000000') AS prev_hash, e.hash
FROM runs r
JOIN events e ON e.id BETWEEN r.number * 4294967296 + 1 AND r.number * 4294967296 + 4294967295
LEFT JOIN events before ON before.id = e.id - 1;
