//! `piton report`: the page tells everything, nothing that a run says becomes part of it, and the bundle beside it proves it.

use super::cli::Desk;

/// An approval, work by hand with evidence, a skip that is a deviation, a failure with a retry, and commands that say what a page could take for its own.
const STEPS: &str = "params:
  who: { type: string, default: '<b>me</b>' }
windows:
  - { name: outage, opens: stop, closes: start, budget: 1h }
  - { name: too-long, opens: stop, closes: slow, budget: 1ms }
steps:
  - { id: ask, name: 'Is it & safe?', approval: { prompt: 'Sure?' } }
  - { id: stop, needs: [ask], exec: { argv: [echo, '</pre><script>alert(1)</script>'] } }
  - { id: flaky, needs: [stop], exec: { argv: [sh, -c, 'test -e once || { touch once; echo broken >&2; exit 3; }'] }, idempotent: yes, retry: { attempts: 2, backoff: { initial: 1ms } } }
  - { id: slow, needs: [flaky], wait.for: { duration: 20ms } }
  - { id: look, needs: [slow], manual: { instructions: 'Look at it', form: { seen: { type: string } }, evidence: required } }
  - { id: extra, needs: [look], exec: { argv: ['true'] } }
  - { id: start, needs: [look], exec: { argv: [echo, '{{ params.who }}'] } }
";

fn told() -> Desk {
    let desk = Desk::new();
    desk.runbook("job", STEPS);
    desk.write("seen.txt", "a picture");
    desk.piton(&["run", "job.yaml", "--run-id", "r"]).exits(6);
    desk.piton(&["approve", "r", "ask", "--as", "eve", "--comment", "<i>go</i>"]).exits(0);
    desk.piton(&["skip", "r", "extra", "--as", "ann", "--reason", "no time"]).exits(0);
    desk.piton(&["resume", "r"]).exits(6);
    desk.piton(&["answer", "r", "look", "--as", "bob", "--set", "seen=yes", "--evidence", "seen.txt"]).exits(0);
    desk.piton(&["resume", "r"]).exits(0);
    desk
}

fn page_of(desk: &Desk, folder: &str) -> String {
    std::fs::read_to_string(desk.path(folder).join("report.html")).expect("the page is there")
}

/// The part of a page under a heading.
fn part<'p>(page: &'p str, heading: &str) -> &'p str {
    let from = page.find(&format!("<h2>{heading}</h2>")).unwrap_or_else(|| panic!("no `{heading}` in the page"));
    let rest = &page[from + 4..];
    &rest[..rest.find("<h2>").unwrap_or(rest.len())]
}

#[test]
fn a_report_tells_everything_and_is_proved_by_the_bundle_beside_it() {
    let desk = told();
    desk.piton(&["report", "r", "--to", "out/r"]).exits(0);
    let page = page_of(&desk, "out/r");
    let before_figures = &page[..page.find("class=\"figures\"").expect("figures")];
    assert!(
        before_figures.contains("Deviations from what the runbook says") && before_figures.contains("no time"),
        "{before_figures}"
    );
    assert!(
        before_figures.contains("What failed on the way") && before_figures.contains("exit code 3"),
        "{before_figures}"
    );
    assert!(!before_figures.contains("Interruptions"), "it only rested: {before_figures}");
    for (heading, words) in [
        ("Windows", &["outage", "within budget", "too-long", "over budget"][..]),
        ("Timeline", &["<svg", "flaky: failed", "flaky: done", "ask: waited for people"]),
        ("People", &["eve", "approved", "ann", "bob", "reported done", "SHA-256"]),
        ("Steps", &["Is it &amp; safe?", "after ask", "approval", "no time"]),
        ("Every record", &["started: job 1.0.0", "attempt 2", "the run rested for"]),
        ("What commands said", &["broken", "standard error"]),
        ("Runbook, site and files, as they were run", &["job.yaml", "kind: Runbook"]),
    ] {
        let part = part(&page, heading);
        for word in words {
            assert!(part.contains(word), "`{word}` is not under `{heading}`:\n{part}");
        }
    }
    let bundle = desk.path("out/r/bundle.jsonl");
    let digest = sha256(&std::fs::read(&bundle).expect("is there"));
    assert!(page.contains(&digest), "the page names its bundle");
    let (bundle, key) = (bundle.display().to_string(), desk.path(".piton/keys/seal.pub").display().to_string());
    let elsewhere = Desk::new();
    elsewhere.piton(&["audit", "verify", "--bundle", &bundle, "--key", &key]).exits(0);
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("{:x}", sha2::Sha256::digest(bytes))
}

#[test]
fn nothing_that_a_run_says_becomes_part_of_the_page_and_nothing_is_fetched() {
    let desk = told();
    desk.piton(&["report", "r", "--to", "out"]).exits(0);
    let page = page_of(&desk, "out");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("&lt;i&gt;go&lt;/i&gt;"));
    for foreign in ["<script", "<b>me", "<i>go", "href=", "src=", "@import", "<link", "<iframe"] {
        assert!(!page.contains(foreign), "`{foreign}` is in the page");
    }
    assert!(
        page.match_indices("url(").all(|(at, _)| page[at..].starts_with("url(#")),
        "what is drawn refers to itself only"
    );
    // The only addresses are names of a form.
    let addresses: Vec<&str> = page.match_indices("http").map(|(at, _)| &page[at..(at + 26).min(page.len())]).collect();
    assert!(addresses.iter().all(|address| address.starts_with("http://www.w3.org/2000/svg")), "{addresses:?}");
}

#[test]
fn a_report_is_whole_or_not_there_and_takes_the_place_of_nothing() {
    let desk = told();
    let said = desk.piton(&["report", "r", "--json"]).exits(0).json();
    assert_eq!((&said["intact"], said["report"].as_str()), (&true.into(), Some("report-r/report.html")));
    assert!(desk.piton(&["report", "r"]).exits(2).err.contains("is there already"));
    desk.write("mine.hbs", "{{title}}: {{outcome.text}} {{#each steps}}{{id}} {{/each}}");
    desk.piton(&["report", "r", "--template", "mine.hbs", "--to", "mine"]).exits(0);
    assert_eq!(page_of(&desk, "mine"), "job 1.0.0 on local: succeeded ask stop flaky slow look extra start ");
    for (text, what) in [("{{#if}", "it is no template"), ("{{nobody}}", "cannot be filled in")] {
        desk.write("bad.hbs", text);
        let refused = desk.piton(&["report", "r", "--template", "bad.hbs", "--to", "bad"]).exits(2);
        assert!(refused.err.contains(what) && refused.err.contains("bad.hbs"), "{}", refused.err);
    }
    let left: Vec<_> =
        std::fs::read_dir(desk.path("")).expect("is there").flatten().map(|entry| entry.file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().contains("bad") && !name.to_string_lossy().ends_with("hbs")),
        "{left:?}"
    );
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".report-")), "{left:?}");
}

#[test]
fn records_are_exported_for_spreadsheets_and_collectors_of_events() {
    let desk = Desk::new();
    desk.runbook("job", "steps:\n  - { id: ask, approval: { prompt: 'Sure?' } }\n");
    desk.piton(&["run", "job.yaml", "--run-id", "r"]).exits(6);
    desk.piton(&["approve", "r", "ask", "--as", "=cmd()", "--comment", "two \"words\",\nand a line"]).exits(0);
    desk.piton(&["resume", "r"]).exits(0);
    let records = desk.piton(&["audit", "r", "--json"]).exits(0).json_lines();
    let table = desk.piton(&["audit", "export", "r", "--format", "csv"]).exits(0).out;
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    assert_eq!(reader.headers().expect("names").iter().take(4).collect::<Vec<_>>(), ["run", "seq", "at", "kind"]);
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("is a row")).collect();
    assert_eq!(rows.len(), records.len());
    for (row, record) in rows.iter().zip(&records) {
        assert_eq!(
            (&row[1], &row[3], &row[8]),
            (
                &*record["seq"].to_string(),
                record["kind"].as_str().expect("text"),
                record["hash"].as_str().expect("text")
            )
        );
        assert!(row.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@'])), "{row:?}");
    }
    assert!(rows.iter().any(|row| row[5].contains("two \"words\",\nand a line")), "{table}");
    desk.piton(&["audit", "export", "r", "--format", "cloudevents", "--to", "events"]).exits(0);
    let text = std::fs::read_to_string(desk.path("events")).expect("is there");
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events.len(), records.len());
    for (event, record) in events.iter().zip(&records) {
        assert_eq!((&event["specversion"], &event["data"], &event["time"]), (&"1.0".into(), record, &record["at"]));
        assert_eq!(event.get("subject"), record.get("step"));
    }
}

#[test]
fn a_record_that_was_changed_is_told_at_the_top_of_the_page_and_has_no_bundle() {
    let desk = told();
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    runtime.block_on(async {
        use sqlx::Connection as _;
        let place = format!("sqlite://{}", desk.path(".piton/piton.db").display());
        let mut store = sqlx::SqliteConnection::connect(&place).await.expect("opens");
        let change =
            "UPDATE events SET payload = replace(payload, 'no time', 'on order') WHERE payload LIKE '%no time%'";
        assert_ne!(sqlx::query(change).execute(&mut store).await.expect("is written").rows_affected(), 0);
        store.close().await.expect("closes");
    });
    let said = desk.piton(&["report", "r", "--to", "out"]).exits(1);
    assert!(said.err.contains("not as it was written"), "{}", said.err);
    let page = page_of(&desk, "out");
    let top = &page[..page.find("class=\"figures\"").expect("figures")];
    assert!(top.contains("The record of this run is not as it was written"), "{top}");
    assert!(!desk.path("out/bundle.jsonl").exists());
}
