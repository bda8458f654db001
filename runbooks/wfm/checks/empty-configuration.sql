-- Takes the first pass back; allowed only while 7.6 has nothing of its own.
DELETE FROM wfm_schedule;
DELETE FROM wfm_forecast;
DELETE FROM wfm_calendar_item;
DELETE FROM wfm_shift;
DELETE FROM wfm_agent_activity;
DELETE FROM wfm_activity;
DELETE FROM wfm_agent;
DELETE FROM wfm_contract;
DELETE FROM wfm_team;
DELETE FROM wfm_site;
DELETE FROM wfm_business_unit;
DELETE FROM wfm_security_role
