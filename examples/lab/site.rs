//! The site file of a lab: what `piton run --site` needs to know about its databases, services and options.

use std::fmt::Write as _;
use std::path::Path;

use super::component::ComponentName;
use super::settings::{Database, Lab, Release};
use super::{source, utility};

/// The text of `site.yaml` for the lab, whose processes are started from the binary `piton`.
pub fn site_yaml(lab: &Lab, piton: &Path) -> String {
    let options = &lab.options;
    let mut text = format!(
        "apiVersion: piton/v1\nkind: Site\nname: lab\ntags: [demo]\nvars:\n  timestep: {step}s\n  timestep_seconds: {step}\n  \
         lab: {dir}\n  piton: {piton}\n  entities: {entities}\n  write_lag: {lag}ms\n  \
         migrate_database: [{call}, migrate-database]\n  migrate_performance: [{call}, migrate-performance]\ndatabases:\n",
        call = [&piton.display().to_string(), "lab", "dbu-call", "--dir", &lab.dir.display().to_string()]
            .map(quoted)
            .join(", "),
        step = options.timestep_s,
        dir = quoted(&lab.dir.display().to_string()),
        piton = quoted(&piton.display().to_string()),
        entities = options.entities,
        lag = options.write_lag_ms,
    );
    for database in Database::ALL {
        line(&mut text, &format!("  {}: {{ url: {} }}", database.name(), quoted(&lab.url(database))));
    }
    text.push_str("services:\n");
    let statistics = service(lab, piton, &["source"], source::NAME, "statistics", &[]);
    line(&mut text, &statistics);
    for release in [Release::R65, Release::R76] {
        let prefix = release.prefix();
        let code = if release == Release::R65 { "65" } else { "76" };
        let name = format!("{prefix}-data-aggregator");
        line(&mut text, &service(lab, piton, &["aggregator", "--release", code], &name, prefix, &[source::NAME]));
        for component in ComponentName::ALL {
            let name = format!("{prefix}-{}", component.name());
            let server = format!("{prefix}-server");
            let needs: &[&str] = if component == ComponentName::Server { &[] } else { &[&server] };
            let argv = ["component", "--name", component.name(), "--release", code];
            line(&mut text, &service(lab, piton, &argv, &name, prefix, needs));
        }
    }
    line(&mut text, &service(lab, piton, &["dbu"], utility::NAME, "utility", &[]));
    text.push_str(
        "options:\n  genesys: { sql: { database: genesys, table: option_value, history: option_history } }\n\
         people:\n  alice: { name: Alice, groups: [dba] }\n  bob: { name: Bob, groups: [dba, operations] }\n",
    );
    text
}

fn service(lab: &Lab, piton: &Path, part: &[&str], name: &str, group: &str, needs: &[&str]) -> String {
    let mut argv = vec![quoted(&piton.display().to_string()), quoted("lab")];
    argv.extend(part.iter().map(|word| quoted(word)));
    argv.extend([quoted("--dir"), quoted(&lab.dir.display().to_string())]);
    let needs = if needs.is_empty() { String::new() } else { format!("needs: [{}], ", needs.join(", ")) };
    let ready = quoted(&lab.ready_file(name).display().to_string());
    let argv = argv.join(", ");
    format!(
        "  {name}: {{ group: {group}, {needs}provider: {{ process: {{ argv: [{argv}], ready: {{ file: {ready} }}, stop_timeout: 10s }} }} }}"
    )
}

/// A text as a YAML flow scalar (JSON's quoting is YAML's).
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes any text");
}
