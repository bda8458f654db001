-- Side table in the source database: what performance data looked like when the boundary was fixed (one row per snapshot).
CREATE TABLE piton_source_digest (boundary BIGINT NOT NULL PRIMARY KEY, row_count BIGINT NOT NULL, sum_iv BIGINT, sum_handle_s BIGINT, weighted BIGINT);
