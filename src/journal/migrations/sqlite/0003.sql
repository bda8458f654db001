-- Version 3. Locks of steps beside those of runs. A row stays when its lock is freed (run NULL), so that fences only ever grow.
CREATE TABLE held_locks (
    name     TEXT    NOT NULL PRIMARY KEY,
    fence    INTEGER NOT NULL,
    run      TEXT,
    step     TEXT,
    since_ms INTEGER NOT NULL,
    stays    INTEGER NOT NULL
);

INSERT INTO held_locks SELECT name, 1, run, NULL, taken_ms, 1 FROM locks;

DROP TABLE locks;

ALTER TABLE held_locks RENAME TO locks;

CREATE INDEX locks_run ON locks (run) WHERE run IS NOT NULL;

CREATE TABLE lock_waiters (
    run      TEXT    NOT NULL,
    step     TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    since_ms INTEGER NOT NULL,
    ticket   INTEGER NOT NULL,
    PRIMARY KEY (run, step, name)
) WITHOUT ROWID;
