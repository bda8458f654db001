-- Version 4. The hash before a record is that of the record before it; it is kept once.
ALTER TABLE piton.events DROP COLUMN prev_hash;
