//! `db.preflight` on real servers: a clean pair is clean, and everything that would stop a copy is named with what to do about it.

use piton::transfer::{Engine, Mapping, PreflightReport, PreflightRequest, Severity, preflight};

use super::cli::Desk;
use crate::support::databases::{ENGINES, Fresh};

const MAP: &str = "apiVersion: piton/v1\nkind: Mapping\nname: m\nsets: { all: [item] }\n";

fn request(set: Option<&str>) -> PreflightRequest {
    let mapping = Mapping::from_yaml(MAP).expect("valid");
    PreflightRequest { mapping, set: set.map(str::to_owned), connections: 4, extensions: Vec::new() }
}

fn table(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, at TEXT)",
        Engine::Postgres => "CREATE TABLE item (id bigint PRIMARY KEY, name text, at timestamptz)",
        Engine::Mariadb => "CREATE TABLE item (id BIGINT PRIMARY KEY, name VARCHAR(40), at TIMESTAMP(6) NULL)",
    }
}

/// The findings of this weight as `side check: found`.
fn said(report: &PreflightReport, severity: Severity) -> Vec<String> {
    let of_weight = report.findings.iter().filter(|finding| finding.severity == severity);
    of_weight.map(|finding| format!("{} {}: {}", finding.side, finding.check, finding.found)).collect()
}

#[track_caller]
fn names(report: &PreflightReport, severity: Severity, words: &[&str]) {
    for word in words {
        let found = said(report, severity);
        assert!(found.iter().any(|line| line.contains(word)), "{word} is not in {found:#?}");
    }
}

#[tokio::test]
async fn a_pair_that_is_ready_has_no_errors_and_every_fact() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for from in ENGINES {
        let source = Fresh::new(from, "pf", folder.path()).await;
        source.run(table(from)).await;
        for to in ENGINES {
            let target = Fresh::new(to, "pf", folder.path()).await;
            target.run(table(to)).await;
            let way = format!("{from} to {to}");
            let report = preflight(&source.database, &target.database, &request(None)).await;
            let report = report.unwrap_or_else(|error| panic!("{way}: {error}"));
            assert_eq!(said(&report, Severity::Error), Vec::<String>::new(), "{way}");
            for (engine, facts) in [(from, &report.source), (to, &report.target)] {
                assert_eq!(facts.engine, engine.to_string());
                assert!(
                    !facts.version.is_empty() && facts.encoding.to_lowercase().starts_with("utf"),
                    "{way}: {facts:?}"
                );
                assert_eq!(facts.connections_free.is_some(), engine != Engine::Sqlite, "{way}");
                assert_eq!(facts.clock_ahead_ms.is_some(), engine != Engine::Sqlite, "{way}");
                assert!(facts.tables_bytes.is_some(), "{way}: {facts:?}");
            }
            assert!(
                report.target.disk_free_bytes.is_some_and(|bytes| bytes > 0),
                "{way}: both servers are on this machine"
            );
            let left = target.value(match to {
                Engine::Sqlite => "SELECT count(*) FROM sqlite_master",
                Engine::Postgres => "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'",
                Engine::Mariadb => "SELECT count(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()",
            });
            assert_eq!(left.await, 1, "{way}: nothing but the table is there");
        }
    }
}

#[tokio::test]
async fn what_a_postgresql_role_may_not_do_is_named() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let source = Fresh::new(Engine::Postgres, "pf", folder.path()).await;
    let target = Fresh::new(Engine::Postgres, "pf", folder.path()).await;
    for side in [&source, &target] {
        side.run(table(Engine::Postgres)).await;
    }
    source.run("CREATE ROLE pf_nobody LOGIN; ALTER ROLE pf_nobody SET timezone = 'Europe/Berlin'").await;
    let mut wanted = request(Some("all"));
    wanted.extensions = vec!["no_such_extension".to_owned()];
    wanted.connections = 100_000;
    let (from, to) = (source.as_user("pf_nobody").await, target.as_user("pf_nobody").await);
    let report = preflight(&from, &to, &wanted).await.expect("both sides answer");
    let errors = [
        "source privilege: `pf_nobody` lacks SELECT on `item`",
        "target privilege: `pf_nobody` lacks SELECT on `item`",
        "target privilege: `pf_nobody` lacks INSERT on `item`",
        "target privilege: `pf_nobody` lacks UPDATE on `item`",
        "target privilege: `pf_nobody` lacks CREATE on the current schema",
        "target extension: the extension `no_such_extension` is missing",
        "connections are free, 100000 are needed",
    ];
    names(&report, Severity::Error, &errors);
    assert_eq!(report.target.time_zone.as_deref(), Some("Europe/Berlin"));
    assert_eq!(report.findings.iter().filter(|finding| finding.help.is_empty()).count(), 0);

    source.run("GRANT SELECT ON item TO pf_nobody; ALTER TABLE item ENABLE ROW LEVEL SECURITY; ALTER ROLE pf_nobody SET statement_timeout = '5s'").await;
    target.run("GRANT SELECT, INSERT, UPDATE ON item TO pf_nobody; GRANT CREATE ON SCHEMA public TO pf_nobody").await;
    target.run("CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'").await;
    target.run("CREATE TRIGGER touched BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION touch()").await;
    let from = source.as_user("pf_nobody").await;
    let report = preflight(&from, &to, &request(Some("all"))).await.expect("both sides answer");
    assert_eq!(
        said(&report, Severity::Error),
        ["source row_security: row security hides rows of `item` from `pf_nobody`"]
    );
    names(&report, Severity::Warning, &["trigger `touched`", "`statement_timeout` is 5000 ms"]);
}

#[tokio::test]
async fn what_a_mariadb_account_may_not_do_is_named() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let source = Fresh::new(Engine::Mariadb, "pf", folder.path()).await;
    let target = Fresh::new(Engine::Mariadb, "pf", folder.path()).await;
    source.run("CREATE TABLE item (code VARCHAR(9) PRIMARY KEY, at TIMESTAMP NULL) ENGINE=MyISAM").await;
    target.run("CREATE TABLE item (code VARCHAR(9) CHARACTER SET latin1 PRIMARY KEY, at DATETIME NULL)").await;
    target.run("CREATE TRIGGER touched BEFORE INSERT ON item FOR EACH ROW SET NEW.at = NULL").await;
    let name = target.value("SELECT DATABASE()").await;
    let name = name.as_str().expect("a name").replace('_', "\\_");
    let grant = format!("CREATE USER pf_nobody@localhost; GRANT SELECT ON `{name}`.* TO pf_nobody@localhost");
    target.run(&grant).await;
    let to = target.as_user("pf_nobody").await;
    let report = preflight(&source.database, &to, &request(None)).await.expect("both sides answer");
    let errors = ["target privilege: pf_nobody@localhost lacks INSERT on `item`", "lacks UPDATE on `item`"];
    names(&report, Severity::Error, &errors);
    let warnings = [
        "no grant of CREATE on",
        "no grant of CREATE TEMPORARY TABLES on",
        "`item`.`code` is `latin1`",
        "the key `item`.`code` is `latin1_swedish_ci`",
        "`item` has no transactions",
    ];
    names(&report, Severity::Warning, &warnings);
    target.run(&format!("GRANT ALL ON `{name}`.* TO pf_nobody@localhost")).await;
    let to = target.as_user("pf_nobody").await;
    let report = preflight(&source.database, &to, &request(None)).await.expect("both sides answer");
    assert_eq!(said(&report, Severity::Error), Vec::<String>::new());
    // An account that may not make triggers does not see them either.
    names(&report, Severity::Warning, &["trigger `touched`"]);
    assert!(!said(&report, Severity::Warning).iter().any(|line| line.contains("privilege")), "{report:#?}");
}

#[tokio::test]
async fn a_mapping_that_does_not_fit_is_told_with_the_rest() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for engine in ENGINES {
        let source = Fresh::new(engine, "pf", folder.path()).await;
        let target = Fresh::new(engine, "pf", folder.path()).await;
        source.run(table(engine)).await;
        source.run("CREATE TABLE forgotten (id INTEGER PRIMARY KEY)").await;
        target.run("CREATE TABLE item (id BIGINT PRIMARY KEY, extra INTEGER)").await;
        let report = preflight(&source.database, &target.database, &request(None)).await.expect("both sides answer");
        names(&report, Severity::Error, &["mapping mapping: source table `forgotten`", "`item.name`", "`item.extra`"]);
        let report = preflight(&source.database, &target.database, &request(Some("all"))).await.expect("answers");
        assert!(!said(&report, Severity::Error).iter().any(|line| line.contains("forgotten")), "one set was asked for");
    }
}

#[tokio::test]
async fn a_preflight_step_stops_the_run_before_anything_is_changed() {
    let desk = Desk::new();
    let folder = desk.path("");
    let source = Fresh::new(Engine::Sqlite, "pf", &folder).await;
    let target = Fresh::new(Engine::Postgres, "pf", &folder).await;
    source.run(table(Engine::Sqlite)).await;
    source.run("INSERT INTO item VALUES (1, 'one', '2024-02-29 01:02:03+00')").await;
    target.run(table(Engine::Postgres)).await;
    let site = format!("databases: {{ old: {{ url: '{}' }}, new: {{ url: '{}' }} }}\n", source.url, target.url);
    desk.write("site.yaml", &format!("apiVersion: piton/v1\nkind: Site\nname: here\n{site}"));
    desk.write("map.yaml", MAP);
    let steps = |more: &str| {
        format!(
            "params: {{ wanted: {{ type: integer, default: 2 }} }}\nsteps:\n  - id: ready\n    phase: preflight\n    db.preflight: {{ from: old, to: new, map: map.yaml, connections: '{{{{ params.wanted }}}}'{more} }}\n  \
             - id: move\n    db.copy: {{ from: old, to: new, map: map.yaml, tables: all }}\n  \
             - id: seen\n    needs: [ready]\n    exec: {{ argv: [echo, '{{{{ steps.ready.outputs.errors }}}}'] }}\n"
        )
    };
    desk.runbook("move", &steps(""));
    let site = ["--site", "site.yaml"];
    let refused = desk.piton(&["run", site[0], site[1], "--param", "wanted=100000", "move.yaml"]).exits(4);
    assert!(format!("{}{}", refused.out, refused.err).contains("100000 are needed"), "{}", refused.out);
    assert_eq!(target.value("SELECT count(*) FROM item").await, 0);
    desk.piton(&["run", site[0], site[1], "move.yaml"]).exits(0);
    assert_eq!(target.value("SELECT count(*) FROM item").await, 1);
    let outputs = &desk.show()["steps"][0]["outputs"];
    assert_eq!((&outputs["errors"], &outputs["target"]["engine"]), (&0.into(), &"PostgreSQL".into()), "{outputs}");
}
