-- Version 1. `events` is the only source of truth; `runs` is an index that can be built again from it. Text is compared
-- byte by byte, as SQLite does it.
CREATE TABLE piton.events (
    run        text   COLLATE "C" NOT NULL,
    seq        bigint NOT NULL CHECK (seq > 0),
    at_ms      bigint NOT NULL,
    generation bigint NOT NULL,
    kind       text   COLLATE "C" NOT NULL,
    payload    text   NOT NULL,
    prev_hash  text   COLLATE "C" NOT NULL,
    hash       text   COLLATE "C" NOT NULL,
    PRIMARY KEY (run, seq)
);

CREATE INDEX events_finished ON piton.events (at_ms) WHERE kind = 'run_finished';

CREATE TABLE piton.runs (
    run        text   COLLATE "C" NOT NULL PRIMARY KEY,
    runbook    text   NOT NULL,
    version    text   NOT NULL,
    site       text   NOT NULL,
    started_by text   NOT NULL,
    started_ms bigint NOT NULL,
    outcome    text
);

CREATE INDEX runs_started ON piton.runs (started_ms);

-- A row stays when its lease is released (owner NULL), so that generations only ever grow.
CREATE TABLE piton.leases (
    run        text   COLLATE "C" NOT NULL PRIMARY KEY,
    generation bigint NOT NULL,
    owner      text,
    until_ms   bigint NOT NULL
);

CREATE TABLE piton.locks (
    name     text   COLLATE "C" NOT NULL PRIMARY KEY,
    run      text   COLLATE "C" NOT NULL,
    taken_ms bigint NOT NULL
);

CREATE INDEX locks_run ON piton.locks (run);
