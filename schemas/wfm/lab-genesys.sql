-- The option store (application object, section, option, value; nothing is validated, every change is kept) and what the
-- Database Utility did. In the history an empty old or new value means that the option was absent.
CREATE TABLE option_value (object VARCHAR(120) NOT NULL, section VARCHAR(120) NOT NULL, name VARCHAR(120) NOT NULL, value TEXT NOT NULL, PRIMARY KEY (object, section, name));
CREATE TABLE option_history (at TEXT NOT NULL, who TEXT NOT NULL, object VARCHAR(120) NOT NULL, section VARCHAR(120) NOT NULL, name VARCHAR(120) NOT NULL, old_value TEXT, new_value TEXT);
CREATE TABLE dbu_start (session_id VARCHAR(40) NOT NULL PRIMARY KEY, started_ms BIGINT NOT NULL, allow_migrate_performance TEXT);
CREATE TABLE migration_pass (pass_id VARCHAR(40) NOT NULL PRIMARY KEY, operation VARCHAR(32) NOT NULL, started_ms BIGINT NOT NULL, ended_ms BIGINT, config_rows BIGINT NOT NULL, perf_rows BIGINT NOT NULL, option_value TEXT);
