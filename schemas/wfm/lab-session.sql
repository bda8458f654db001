-- Who is connected, and since when: written by the lab's components into the database they use. Times are epoch milliseconds.
-- A component that was killed leaves `closed_ms` empty; its session then ends at its last heartbeat.
CREATE TABLE lab_session (session_id VARCHAR(40) NOT NULL PRIMARY KEY, component VARCHAR(60) NOT NULL, kind VARCHAR(16) NOT NULL, pid INTEGER NOT NULL, opened_ms BIGINT NOT NULL, beat_ms BIGINT NOT NULL, closed_ms BIGINT);
