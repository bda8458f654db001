-- Version 1. `events` is the only source of truth; `runs` is an index that can be built again from it.
CREATE TABLE events (
    run        TEXT    NOT NULL,
    seq        INTEGER NOT NULL CHECK (seq > 0),
    at_ms      INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    payload    TEXT    NOT NULL,
    prev_hash  TEXT    NOT NULL,
    hash       TEXT    NOT NULL,
    PRIMARY KEY (run, seq)
) WITHOUT ROWID;

CREATE INDEX events_finished ON events (at_ms) WHERE kind = 'run_finished';

CREATE TABLE runs (
    run        TEXT    NOT NULL PRIMARY KEY,
    runbook    TEXT    NOT NULL,
    version    TEXT    NOT NULL,
    site       TEXT    NOT NULL,
    started_by TEXT    NOT NULL,
    started_ms INTEGER NOT NULL,
    last_ms    INTEGER NOT NULL,
    outcome    TEXT
);

CREATE INDEX runs_started ON runs (started_ms);

-- A row stays when its lease is released (owner NULL), so that generations only ever grow.
CREATE TABLE leases (
    run        TEXT    NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL,
    owner      TEXT,
    until_ms   INTEGER NOT NULL
);

CREATE TABLE locks (
    name     TEXT    NOT NULL PRIMARY KEY,
    run      TEXT    NOT NULL,
    taken_ms INTEGER NOT NULL
);

CREATE INDEX locks_run ON locks (run);
