-- Performance rows in the target; none may be there before the second pass begins.
SELECT COUNT(*) AS n FROM wfm_perf_timestep
