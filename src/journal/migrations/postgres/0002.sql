-- Version 2. Locks of steps beside those of runs. A row stays when its lock is freed (run NULL), so that fences only ever grow.
ALTER TABLE piton.locks ALTER COLUMN run DROP NOT NULL;
ALTER TABLE piton.locks RENAME COLUMN taken_ms TO since_ms;
ALTER TABLE piton.locks ADD COLUMN step text COLLATE "C";
ALTER TABLE piton.locks ADD COLUMN fence bigint NOT NULL DEFAULT 1;
ALTER TABLE piton.locks ADD COLUMN stays boolean NOT NULL DEFAULT true;

CREATE TABLE piton.lock_waiters (
    run      text   COLLATE "C" NOT NULL,
    step     text   COLLATE "C" NOT NULL,
    name     text   COLLATE "C" NOT NULL,
    since_ms bigint NOT NULL,
    ticket   bigint NOT NULL,
    PRIMARY KEY (run, step, name)
);
