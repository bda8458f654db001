//! `db.sessions` on real servers: who is there, what they do, whom it ends and whom never.

use std::time::Duration;

use piton::transfer::{Engine, SessionFilter, SessionInfo, SessionState, sessions};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, MySqlConnection, PgConnection};

use super::cli::Desk;
use crate::support::databases::Fresh;

const SERVERS: [Engine; 2] = [Engine::Postgres, Engine::Mariadb];

/// A client that has nothing to do with Piton.
enum Client {
    Postgres(PgConnection),
    Mariadb(MySqlConnection),
}

impl Client {
    async fn open(fresh: &Fresh, user: &str, application: &str) -> Self {
        match fresh.database.engine() {
            Engine::Postgres => {
                let options: PgConnectOptions = fresh.url.parse().expect("an address");
                let options = options.username(user).application_name(application);
                Self::Postgres(options.connect().await.expect("a client may connect"))
            }
            Engine::Mariadb | Engine::Sqlite => {
                let options: MySqlConnectOptions = fresh.url.parse().expect("an address");
                Self::Mariadb(options.username(user).connect().await.expect("a client may connect"))
            }
        }
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::Postgres(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
            Self::Mariadb(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
        }
    }

    async fn is_alive(&mut self) -> bool {
        self.run("SELECT 1").await.is_ok()
    }
}

/// Two accounts that may enter the database, of a name that no other test uses.
async fn accounts(fresh: &Fresh) -> (String, String) {
    let (app, batch) = (Fresh::name("app"), Fresh::name("batch"));
    match fresh.database.engine() {
        Engine::Postgres => fresh.run(&format!("CREATE ROLE {app} LOGIN; CREATE ROLE {batch} LOGIN")).await,
        Engine::Mariadb | Engine::Sqlite => {
            for user in [&app, &batch] {
                let name = fresh.value("SELECT DATABASE()").await;
                let name = name.as_str().expect("a name").to_owned();
                fresh
                    .run(&format!("CREATE USER {user}@localhost; GRANT SELECT ON `{name}`.* TO {user}@localhost"))
                    .await;
            }
        }
    }
    (app, batch)
}

fn by_users(users: &[&String]) -> SessionFilter {
    SessionFilter { users: users.iter().map(|user| (*user).clone()).collect(), ..SessionFilter::default() }
}

async fn list(fresh: &Fresh, filter: &SessionFilter) -> Vec<SessionInfo> {
    sessions(&fresh.database, filter).await.expect("the sessions are told")
}

/// The sessions of a filter as soon as each is in the state that is awaited.
async fn settled(fresh: &Fresh, filter: &SessionFilter, states: &[SessionState]) -> Vec<SessionInfo> {
    for _ in 0..50 {
        let found = list(fresh, filter).await;
        if found.iter().map(|info| info.state).eq(states.iter().copied()) {
            return found;
        }
        // MariaDB looks for open transactions anew only when nobody has asked for 100 ms.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{states:?} did not come: {:?}", list(fresh, filter).await);
}

#[tokio::test]
async fn each_session_is_told_with_what_it_does_and_filters_choose() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for engine in SERVERS {
        let here = Fresh::new(engine, "ses", folder.path()).await;
        let there = Fresh::new(engine, "ses", folder.path()).await;
        let (app, batch) = accounts(&here).await;
        let mut idle = Client::open(&here, &app, "wfm-idle").await;
        idle.run("SELECT 'one secret'").await.expect("runs");
        let mut open = Client::open(&here, &app, "wfm-open").await;
        open.run("BEGIN").await.expect("runs");
        here.run("CREATE TABLE seen (id INTEGER PRIMARY KEY)").await;
        if engine == Engine::Postgres {
            here.run("GRANT SELECT ON seen TO public").await;
        }
        open.run("SELECT * FROM seen").await.expect("runs");
        let mut busy = Client::open(&here, &batch, "wfm-busy").await;
        let sleep = if engine == Engine::Postgres { "SELECT pg_sleep(600)" } else { "SELECT SLEEP(600)" };
        let busy = tokio::spawn(async move { busy.run(sleep).await });
        let mut root =
            Client::open(&there, if engine == Engine::Postgres { "postgres" } else { "root" }, "wfm-else").await;
        root.run("SELECT 1").await.expect("runs");

        let three = [SessionState::Idle, SessionState::IdleInTransaction, SessionState::Active];
        let all = settled(&here, &SessionFilter::default(), &three).await;
        assert_eq!(all.iter().map(|info| &info.user).collect::<Vec<_>>(), [&app, &app, &batch], "{engine}");
        assert!(all.iter().all(|info| info.database.is_some() && info.statement.is_none() && info.for_ms.is_some()));
        if engine == Engine::Postgres {
            let applications = SessionFilter { applications: vec!["wfm-[io]*".into()], ..SessionFilter::default() };
            assert_eq!(list(&here, &applications).await.len(), 2);
        }
        assert_eq!(list(&here, &by_users(&[&batch])).await.len(), 1, "{engine}");
        assert_eq!(
            list(&here, &SessionFilter { except: vec!["app*".into()], ..SessionFilter::default() }).await.len(),
            1
        );
        let waiting = vec![SessionState::IdleInTransaction];
        let waiting = list(&here, &SessionFilter { states: waiting, ..SessionFilter::default() }).await;
        assert_eq!(waiting.iter().map(|info| info.id).collect::<Vec<_>>(), [all[1].id], "{engine}");
        let long = |ms| SessionFilter { longer_than_ms: Some(ms), ..SessionFilter::default() };
        assert_eq!(list(&here, &long(3_600_000)).await, [], "{engine}: nobody was there an hour ago");
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(list(&here, &long(20)).await.len(), 3, "{engine}");
        let told = list(&here, &SessionFilter { statements: true, ..by_users(&[&batch]) }).await;
        assert_eq!(told[0].statement.as_deref(), Some(sleep));
        let everywhere = list(&here, &SessionFilter { whole_server: true, ..SessionFilter::default() }).await;
        assert!(everywhere.len() > 3, "{engine}: the client of the other database is there, too");
        busy.abort();
        assert!(idle.is_alive().await && open.is_alive().await && root.is_alive().await, "looking ends nobody");
    }
}

#[tokio::test]
async fn what_an_account_may_not_see_is_no_empty_list() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for engine in SERVERS {
        let here = Fresh::new(engine, "ses", folder.path()).await;
        let (app, batch) = accounts(&here).await;
        let _client = Client::open(&here, &batch, "wfm").await;
        let poor = here.as_user(&app).await;
        let wanted = SessionFilter { longer_than_ms: Some(0), ..SessionFilter::default() };
        let error = sessions(&poor, &wanted).await.expect_err("hidden").to_string();
        assert!(error.contains(if engine == Engine::Postgres { "pg_read_all_stats" } else { "PROCESS" }), "{error}");
    }
}

fn site(fresh: &Fresh, url: &str) -> String {
    format!(
        "apiVersion: piton/v1\nkind: Site\nname: here\ndatabases: {{ wfm: {{ url: '{}' }}, poor: {{ url: '{url}' }} }}\n",
        fresh.url
    )
}

#[tokio::test]
async fn sessions_are_ended_but_never_its_own_and_what_was_refused_is_told() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for engine in SERVERS {
        let here = Fresh::new(engine, "ses", folder.path()).await;
        let (app, batch) = accounts(&here).await;
        let desk = Desk::new();
        let poor = here.url.replacen("root@", &format!("{app}@"), 1).replacen("postgres@", &format!("{app}@"), 1);
        desk.write("site.yaml", &site(&here, &poor));
        // The query before leaves a session of the run's own in the pool.
        desk.runbook(
            "drain",
            &format!(
                "steps:\n  - id: own\n    db.query: {{ database: wfm, sql: 'SELECT 1 AS one' }}\n  - id: drain\n    needs: [own]\n    \
                 db.sessions: {{ database: wfm, except: [{batch}, root, postgres], terminate: true }}\n  - id: after\n    needs: [drain]\n    \
                 db.query: {{ database: wfm, sql: 'SELECT 1 AS one' }}\n"
            ),
        );
        let mut first = Client::open(&here, &app, "wfm").await;
        let mut second = Client::open(&here, &app, "wfm").await;
        second.run("BEGIN").await.expect("runs");
        let mut spared = Client::open(&here, &batch, "wfm").await;
        let planned = desk.piton(&["plan", "--site", "site.yaml", "drain.yaml"]).exits(0);
        assert!(planned.out.contains("ends 2 sessions"), "{engine}: {} {}", planned.out, planned.err);
        assert!(first.is_alive().await && second.is_alive().await, "{engine}: a plan ends nobody");
        desk.piton(&["run", "--site", "site.yaml", "drain.yaml"]).exits(0);
        let outputs = desk.show()["steps"][1]["outputs"].clone();
        assert_eq!(outputs["count"], 2, "{engine}: {outputs}");
        assert_eq!(outputs["ended"].as_array().map(Vec::len), Some(2), "{outputs}");
        assert_eq!(outputs["rows"][0]["user"], app.as_str(), "{outputs}");
        assert!(!first.is_alive().await && !second.is_alive().await && spared.is_alive().await, "{engine}");
        desk.piton(&["run", "--site", "site.yaml", "drain.yaml"]).exits(0);
        assert_eq!(desk.show()["steps"][1]["outputs"]["count"], 0, "{engine}: again there is nobody to end");

        let rights = match engine {
            Engine::Postgres => format!("GRANT pg_read_all_stats TO {app}"),
            Engine::Mariadb | Engine::Sqlite => format!("GRANT PROCESS ON *.* TO {app}@localhost"),
        };
        here.run(&rights).await;
        let steps = format!(
            "steps:\n  - id: drain\n    db.sessions: {{ database: poor, users: [{batch}], terminate: true }}\n"
        );
        desk.runbook("refused", &steps);
        let refused = desk.piton(&["run", "--site", "site.yaml", "refused.yaml"]).exits(4);
        let said = format!("{}{}", refused.out, refused.err);
        assert!(said.contains("1 of 1 sessions could not be ended") && said.contains(&batch), "{engine}: {said}");
        assert!(spared.is_alive().await, "{engine}");
    }
}

#[tokio::test]
async fn a_wait_goes_on_until_nobody_is_left() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for engine in SERVERS {
        let here = Fresh::new(engine, "ses", folder.path()).await;
        let (app, _) = accounts(&here).await;
        let desk = Desk::new();
        desk.write("site.yaml", &site(&here, &here.url));
        desk.runbook(
            "wait",
            &format!(
                "steps:\n  - id: none\n    db.sessions: {{ database: wfm, users: [{app}], none: true }}\n    on_failure: continue\n  - id: begun\n    \
                 needs: [{{ step: none, outcome: any }}]\n    file.write: {{ path: begun, content: x }}\n  - id: wait\n    needs: [begun]\n    \
                 wait.until: {{ every: 50ms, timeout: 60s, db.sessions: {{ database: wfm, users: [{app}], none: true }} }}\n"
            ),
        );
        let client = Client::open(&here, &app, "wfm").await;
        let mut run = desk.command(&["run", "--site", "site.yaml", "wait.yaml"]).spawn().expect("it starts");
        desk.wait_for("begun");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(run.try_wait().expect("a child").is_none(), "{engine}: it waits for the client");
        drop(client);
        let ended = tokio::task::spawn_blocking(move || run.wait()).await.expect("joined").expect("a status");
        assert_eq!(ended.code(), Some(4), "{engine}: the first look fails");
        let steps = desk.show();
        let states = ["none", "wait"].map(|id| super::cli::state(&steps, id));
        assert_eq!(states, ["failed", "succeeded"], "{steps}");
    }
}

#[test]
fn a_file_is_refused_before_anything_runs() {
    let desk = Desk::new();
    desk.write(
        "site.yaml",
        "apiVersion: piton/v1\nkind: Site\nname: here\ndatabases: { wfm: { url: 'sqlite:wfm.db' } }\n",
    );
    desk.runbook("files", "steps:\n  - id: who\n    db.sessions: { database: wfm }\n");
    let said = desk.piton(&["check", "--site", "site.yaml", "files.yaml"]).exits(3);
    assert!(format!("{}{}", said.out, said.err).contains("plan::no_sessions"), "{}{}", said.out, said.err);
}
