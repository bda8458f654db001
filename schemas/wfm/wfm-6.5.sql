-- The lab's 6.5 schema. The real product's table names are not public; these follow the style of its
-- public ETL reference. One text for SQLite and PostgreSQL. Times are epoch seconds, UTC.
CREATE TABLE wfm_schema_version (version VARCHAR(32) NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL, is_current INTEGER NOT NULL);
CREATE TABLE wfm_business_unit (bu_id INTEGER NOT NULL PRIMARY KEY, bu_name VARCHAR(80) NOT NULL, timezone VARCHAR(40) NOT NULL);
CREATE TABLE wfm_site (site_id INTEGER NOT NULL PRIMARY KEY, bu_id INTEGER NOT NULL, site_name VARCHAR(80) NOT NULL, week_start INTEGER NOT NULL);
CREATE TABLE wfm_team (team_id INTEGER NOT NULL PRIMARY KEY, site_id INTEGER NOT NULL, team_name VARCHAR(80) NOT NULL);
CREATE TABLE wfm_contract (contract_id INTEGER NOT NULL PRIMARY KEY, site_id INTEGER NOT NULL, contract_name VARCHAR(80) NOT NULL, weekly_minutes INTEGER NOT NULL);
CREATE TABLE wfm_agent (agent_id INTEGER NOT NULL PRIMARY KEY, team_id INTEGER NOT NULL, contract_id INTEGER NOT NULL, agent_name VARCHAR(120) NOT NULL, hired_at BIGINT NOT NULL);
CREATE TABLE wfm_activity (activity_id INTEGER NOT NULL PRIMARY KEY, site_id INTEGER NOT NULL, activity_name VARCHAR(80) NOT NULL, is_active INTEGER NOT NULL);
CREATE TABLE wfm_agent_activity (agent_id INTEGER NOT NULL, activity_id INTEGER NOT NULL, skill_level INTEGER NOT NULL, PRIMARY KEY (agent_id, activity_id));
CREATE TABLE wfm_shift (shift_id INTEGER NOT NULL PRIMARY KEY, site_id INTEGER NOT NULL, shift_name VARCHAR(80) NOT NULL, start_minute INTEGER NOT NULL, length_minutes INTEGER NOT NULL);
CREATE TABLE wfm_calendar (calendar_id INTEGER NOT NULL PRIMARY KEY, agent_id INTEGER NOT NULL, day_number INTEGER NOT NULL, kind VARCHAR(16) NOT NULL, note VARCHAR(200));
CREATE TABLE wfm_forecast (activity_id INTEGER NOT NULL, day_number INTEGER NOT NULL, volume INTEGER NOT NULL, handle_s INTEGER NOT NULL, PRIMARY KEY (activity_id, day_number));
CREATE TABLE wfm_schedule (agent_id INTEGER NOT NULL, day_number INTEGER NOT NULL, shift_id INTEGER NOT NULL, state VARCHAR(16) NOT NULL, PRIMARY KEY (agent_id, day_number));
CREATE TABLE wfm_security_role (role_id INTEGER NOT NULL PRIMARY KEY, role_name VARCHAR(80) NOT NULL);
CREATE TABLE wfm_perf_item (entity_id INTEGER NOT NULL, step_start BIGINT NOT NULL, iv INTEGER NOT NULL, handle_s BIGINT NOT NULL, sl_pct INTEGER NOT NULL, abandoned INTEGER NOT NULL, queue_len INTEGER NOT NULL, PRIMARY KEY (entity_id, step_start));
CREATE INDEX wfm_perf_item_step ON wfm_perf_item (step_start);
