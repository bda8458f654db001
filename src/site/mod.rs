//! What a place provides: databases, services, option stores, people, variables, tags.
//!
//! A site file is data; it says how to reach things and never what to do. Secrets stay references until the moment
//! they are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::identity::{IdentityError, Offered, Signers};
use crate::ids::Actor;
use crate::spec::actions::Require;
use crate::spec::decode::{Decode, Decoder, Named, Schemas, Spanned};
use crate::spec::problem::{Problem, Problems, Source, did_you_mean};
use crate::spec::rules::{Choice, exactly_one, known, more_than_zero};
use crate::spec::runbook::{ApiVersion, refuse_kind};
use crate::spec::values::Millis;
use crate::spec::yaml::{self, Node};
use crate::{choice, record};

pub mod secret;
mod signing;

pub use secret::{SecretError, SecretSource};

choice! {
    /// What the file is.
    pub enum SiteKind("kind of file here") {
        /// A site.
        Site = "Site",
    }
}

record! {
    /// A database.
    #[check(check_database)]
    pub struct DatabaseSite("a database") {
        /// Its address: `sqlite:///path/file.db`, `postgres://user@host/name` or `mysql://user@host/name`.
        url: Option<String>,
        /// Name of a secret that holds the address.
        secret: Option<Spanned<String>>,
    }
}

fn check_database(node: &Node, d: &mut Decoder) {
    let choices = [Choice::Value("url"), Choice::Value("secret")];
    exactly_one("site::one_of", "a database", &choices, "`url: sqlite:///path/file.db`, or `secret: name`", node, d);
    if let Some(url) = known::<String>(node, "url", d)
        && !["sqlite:", "postgres:", "postgresql:", "mysql:", "mariadb:"].iter().any(|scheme| url.starts_with(scheme))
    {
        let place = node.get("url").map_or(node.span, |url| url.span);
        let problem = Problem::new("site::bad_url", "this address names no database engine known here", place);
        d.problem(problem.label("here").help("start it with `sqlite:`, `postgres:` or `mysql:`"));
    }
}

record! {
    /// How a process says that it is ready.
    pub struct Ready("`ready`") {
        /// A file that it writes when it is ready.
        file: Option<String>,
        /// An address that it listens on then.
        tcp: Option<String>,
        /// A command that exits with 0 then.
        exec: Vec<String>,
    }
}

record! {
    /// A process that Piton starts, finds again and stops by itself.
    #[check(check_process)]
    pub struct ProcessProvider("a process provider") {
        /// The command and its arguments.
        argv: Vec<String>,
        /// Environment variables.
        env: BTreeMap<String, String>,
        /// Folder to run in.
        cwd: Option<String>,
        /// How it says that it is ready; alive for a moment when left out.
        ready: Option<Ready>,
        /// Longest time until it is ready.
        start_timeout: Millis = Millis(60_000),
        /// Longest time from the request to stop until it is killed.
        stop_timeout: Millis = Millis(10_000),
    }
}

fn check_process(node: &Node, d: &mut Decoder) {
    command_present("argv", node, d);
}

fn check_command(node: &Node, d: &mut Decoder) {
    for key in ["start", "stop", "status"] {
        command_present(key, node, d);
    }
}

fn command_present(key: &str, node: &Node, d: &mut Decoder) {
    if known::<Vec<String>>(node, key, d).unwrap_or_default().is_empty() {
        let place = node.get(key).map_or(node.span, |list| list.span);
        let problem = Problem::new("site::no_command", format!("`{key}` names no command"), place).label("here");
        d.problem(problem.help(format!("write `{key}: [program, argument]`")));
    }
}

record! {
    /// Any control command.
    #[check(check_command)]
    pub struct CommandProvider("a command provider") {
        /// Starts the service.
        start: Vec<String>,
        /// Stops it.
        stop: Vec<String>,
        /// Exits with 0 when it runs, with 3 when it does not.
        status: Vec<String>,
        /// Longest time of one of these commands.
        timeout: Millis = Millis(60_000),
    }
}

record! {
    /// Who starts and stops a service.
    #[check(check_provider)]
    pub struct Provider("a provider") {
        /// Piton itself.
        process: Option<ProcessProvider>,
        /// A control command.
        command: Option<CommandProvider>,
    }
}

fn check_provider(node: &Node, d: &mut Decoder) {
    let choices = [Choice::Value("process"), Choice::Value("command")];
    exactly_one("site::one_of", "a provider", &choices, "`process: { argv: [program] }`", node, d);
}

record! {
    /// A service.
    pub struct Service("a service") {
        /// Group it belongs to.
        group: Option<String>,
        /// Services that must run before it.
        needs: Vec<Spanned<String>>,
        /// Who starts and stops it.
        provider: Provider,
    }
}

record! {
    /// Options in an INI file.
    pub struct IniStore("an INI store") {
        /// The file.
        path: String,
    }
}

record! {
    /// Options in an SQL table with the columns `object`, `section`, `name`, `value`.
    pub struct SqlStore("an SQL store") {
        /// Database of this site.
        database: Spanned<String>,
        /// The table.
        table: String,
        /// Table for the history: `at, who, object, section, name, old_value, new_value`.
        history: Option<String>,
    }
}

record! {
    /// An option store.
    #[check(check_store)]
    pub struct OptionStoreSite("an option store") {
        /// An INI file.
        ini: Option<IniStore>,
        /// An SQL table.
        sql: Option<SqlStore>,
    }
}

fn check_store(node: &Node, d: &mut Decoder) {
    let choices = [Choice::Value("ini"), Choice::Value("sql")];
    exactly_one("site::one_of", "an option store", &choices, "`ini: { path: app.ini }`", node, d);
}

record! {
    /// A place outside of the store that is told how far each run came when it ends or rests.
    #[check(check_anchor)]
    pub struct AnchorSite("an anchor") {
        /// A file to which the line is appended; best on another host.
        file: Option<String>,
        /// A command that gets the line on standard input: `[logger, -t, piton]`, or `curl` to a webhook.
        command: Option<Vec<String>>,
    }
}

fn check_anchor(node: &Node, d: &mut Decoder) {
    let choices = [Choice::Value("file"), Choice::Value("command")];
    exactly_one("site::one_of", "an anchor", &choices, "`file: /mnt/audit/anchors.jsonl`", node, d);
    if node.get("command").is_some() {
        command_present("command", node, d);
    }
}

record! {
    /// How people are told that a run waits for them.
    #[check(check_hook)]
    pub struct HookSite("`notify`") {
        /// A command that gets the message as JSON on standard input.
        command: Option<Vec<String>>,
        /// Address of a web hook that gets it as JSON, with `text` for chats.
        webhook: Option<String>,
        /// A secret of this site that holds the address of such a hook.
        secret: Option<Spanned<String>>,
    }
}

fn check_hook(node: &Node, d: &mut Decoder) {
    let choices = [Choice::Value("command"), Choice::Value("webhook"), Choice::Value("secret")];
    exactly_one("site::one_of", "`notify`", &choices, "`command: [notify-send, waiting]`", node, d);
    if node.get("command").is_some() {
        command_present("command", node, d);
    }
}

record! {
    /// A person.
    pub struct Person("a person") {
        /// Full name.
        name: Option<String>,
        /// Groups that the person belongs to.
        groups: Vec<String>,
        /// Public keys of the person, as in `id_ed25519.pub`.
        keys: Vec<Spanned<String>>,
    }
}

record! {
    /// How people are told apart.
    pub struct IdentitySite("`identity`") {
        /// How somebody must be identified whose word counts.
        require: Require = Require::Claimed,
    }
}

record! {
    /// Who must have signed the runbooks that run on this site.
    #[check(check_signed)]
    pub struct SignedRunbooks("`signed`") {
        /// Members of these groups count.
        groups: Vec<Spanned<String>>,
        /// These people count, by login; anybody with a key here if neither groups nor people are named.
        people: Vec<Spanned<String>>,
        /// How many different people must have signed.
        quorum: u32 = 1,
    }
}

fn check_signed(node: &Node, d: &mut Decoder) {
    more_than_zero("quorum", node, d);
}

record! {
    /// What runbooks may be and do on this site.
    pub struct RunbooksSite("`runbooks`") {
        /// Runbooks are run only if these people signed them, with all that they are made of.
        signed: Option<SignedRunbooks>,
        /// Folders outside of their projects that runbooks may read their files from, relative to this file.
        reads: Vec<String>,
    }
}

record! {
    /// A site.
    pub struct Site("the site") {
        /// Version of the language: `piton/v1`.
        api_version as "apiVersion": ApiVersion,
        /// `Site`.
        kind: SiteKind,
        /// Its name.
        name: String,
        /// What it is.
        description: Option<String>,
        /// Free values for templates and expressions.
        vars: BTreeMap<String, Json>,
        /// Free words.
        tags: Vec<String>,
        /// Databases by name.
        databases: Named<DatabaseSite>,
        /// Services by name.
        services: Named<Service>,
        /// Option stores by name.
        options: Named<OptionStoreSite>,
        /// People by login.
        people: Named<Person>,
        /// An OpenSSH allowed-signers file with keys of people, relative to this file.
        signers: Option<String>,
        /// How people are told apart.
        identity: Option<IdentitySite>,
        /// What runbooks may be and do here.
        runbooks: Option<RunbooksSite>,
        /// How people are told that a run waits for them, unless the step says how.
        notify: Option<HookSite>,
        /// Secrets by name.
        secrets: Named<SecretSource>,
        /// Who is told how far a run came, so that nobody can cut off its end unnoticed.
        anchors: Vec<AnchorSite>,
    }
}

impl Site {
    /// A site that provides nothing, for runbooks that need nothing.
    pub fn empty() -> Self {
        Self {
            api_version: ApiVersion::V1,
            kind: SiteKind::Site,
            name: "local".into(),
            description: None,
            vars: BTreeMap::new(),
            tags: Vec::new(),
            databases: Named::default(),
            services: Named::default(),
            options: Named::default(),
            people: Named::default(),
            signers: None,
            identity: None,
            runbooks: None,
            notify: None,
            secrets: Named::default(),
            anchors: Vec::new(),
        }
    }

    /// The people who belong to one of `groups` or are named in `people`; nothing when both are empty (anybody).
    pub fn people_in(&self, groups: &[String], people: &[String]) -> Option<BTreeSet<Actor>> {
        if groups.is_empty() && people.is_empty() {
            return None;
        }
        let member = |login: &str, person: &Person| {
            people.iter().any(|name| name == login) || person.groups.iter().any(|group| groups.contains(group))
        };
        Some(
            self.people
                .0
                .iter()
                .filter(|(key, p)| member(&key.text, p))
                .map(|(key, _)| Actor::new(&key.text))
                .collect(),
        )
    }

    /// How somebody must be identified whose word counts.
    pub fn required(&self) -> Require {
        self.identity.as_ref().map_or(Require::Claimed, |identity| identity.require)
    }

    /// What templates and expressions see as `site`.
    pub fn scope(&self) -> Json {
        json!({ "name": self.name, "vars": self.vars, "tags": self.tags })
    }
}

/// A site and where it was read from.
#[derive(Debug, Clone)]
pub struct LoadedSite {
    /// The site.
    pub site: Arc<Site>,
    /// Its text.
    pub source: Arc<Source>,
    /// The data of the whole file; null when there is none.
    pub tree: Arc<Json>,
    /// Folder that relative paths start from.
    pub base: Arc<Path>,
    /// Text of its allowed-signers file, if it names one.
    pub signers: Option<Arc<str>>,
    /// Folders outside of their projects that runbooks may read their files from.
    pub reads: Arc<[PathBuf]>,
    /// What lies beside it to show who signed it; not judged yet.
    pub offered: Option<Arc<Offered>>,
}

impl LoadedSite {
    /// The site that provides nothing.
    pub fn empty() -> Self {
        let source = Arc::new(Source { name: "(no site)".into(), text: String::new() });
        Self {
            site: Arc::new(Site::empty()),
            source,
            tree: Arc::new(Json::Null),
            base: Path::new(".").into(),
            signers: None,
            reads: Arc::default(),
            offered: None,
        }
    }

    /// The same, with further folders that runbooks may read their files from.
    #[must_use]
    pub fn reading(self, more: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut reads = self.reads.to_vec();
        reads.extend(more);
        Self { reads: reads.into(), ..self }
    }

    /// Whether there is a site file.
    pub fn is_given(&self) -> bool {
        !self.source.text.is_empty()
    }

    /// The keys of its people.
    ///
    /// # Errors
    /// When a key or a line cannot be honoured.
    pub fn keys(&self) -> Result<Signers, IdentityError> {
        let mut signers = Signers::default();
        for (key, person) in &self.site.people.0 {
            for public in &person.keys {
                signers.add(&key.text, &public.value)?;
            }
        }
        if let Some(text) = &self.signers {
            signers.add_file(text)?;
        }
        Ok(signers)
    }
}

/// Reads a site from its text.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(source: &Arc<Source>, base: &Path) -> Result<LoadedSite, Problems> {
    let (node, duplicates) = yaml::parse_with_duplicates(source)?;
    refuse_kind(&node, "Runbook", "this is a runbook, not a site", "give a site file with `--site`", source)?;
    let mut d = Decoder::new(Arc::clone(source));
    d.problems = duplicates;
    let site = Site::decode(&node, &mut d);
    if let Some(site) = &site {
        check_names(site, &mut d);
    }
    let site = d.finish(site)?;
    let reads = site.runbooks.iter().flat_map(|runbooks| &runbooks.reads).map(|folder| base.join(folder)).collect();
    Ok(LoadedSite {
        site: Arc::new(site),
        source: Arc::clone(source),
        tree: Arc::new(node.to_json()),
        base: base.into(),
        signers: None,
        reads,
        offered: None,
    })
}

/// Names that one part of a site uses of another.
fn check_names(site: &Site, d: &mut Decoder) {
    let mut refuse = |code, what: &str, name: &Spanned<String>, known: Vec<&str>| {
        if !known.contains(&name.value.as_str()) {
            let problem = Problem::new(code, format!("{what} `{}` does not exist on this site", name.value), name.span);
            d.problem(problem.label("unknown").help_if(did_you_mean(&name.value, known.iter().copied())));
        }
    };
    for (_, database) in &site.databases.0 {
        if let Some(secret) = &database.secret {
            refuse("site::unknown_secret", "secret", secret, site.secrets.names().collect());
        }
    }
    if let Some(secret) = site.notify.as_ref().and_then(|hook| hook.secret.as_ref()) {
        refuse("site::unknown_secret", "secret", secret, site.secrets.names().collect());
    }
    for (_, store) in &site.options.0 {
        if let Some(sql) = &store.sql {
            refuse("site::unknown_database", "database", &sql.database, site.databases.names().collect());
        }
    }
    for (_, service) in &site.services.0 {
        for need in &service.needs {
            refuse("site::unknown_service", "service", need, site.services.names().collect());
        }
    }
    check_keys(site, d);
    signing::check(site, d);
    if let Some(cycle) = service_cycle(site) {
        let at = site
            .services
            .0
            .iter()
            .find(|(key, _)| key.text == cycle[0])
            .map_or_else(Default::default, |(key, _)| key.span);
        let path = format!("`{}` needs `{}`", cycle.join("` needs `"), cycle[0]);
        d.problem(
            Problem::new("site::service_cycle", format!("services need each other in a circle: {path}"), at)
                .label("in the circle")
                .help("drop one of these `needs`"),
        );
    }
}

/// Keys that cannot be read, and keys that two people have.
fn check_keys(site: &Site, d: &mut Decoder) {
    let mut known = Signers::default();
    for (name, person) in &site.people.0 {
        for key in &person.keys {
            let others = known.owners(&key.value);
            if let Some(other) = others.iter().find(|other| **other != name.text) {
                let what = format!("this key is that of `{other}` as well, so it tells nobody apart");
                let problem = Problem::new("site::shared_key", what, key.span).label("here");
                d.problem(problem.help("give each person a key of their own"));
            }
            if let Err(error) = known.add(&name.text, &key.value) {
                d.problem(Problem::new("site::bad_key", error.to_string(), key.span).label("here"));
            }
        }
    }
}

/// A circle of service needs, if there is one.
fn service_cycle(site: &Site) -> Option<Vec<String>> {
    fn visit(site: &Site, name: &str, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|seen| seen == name) {
            return Some(path[start..].to_vec());
        }
        if !done.insert(name.to_owned()) {
            return None;
        }
        path.push(name.to_owned());
        let needs = site.services.get(name).map(|service| service.needs.as_slice()).unwrap_or_default();
        let found = needs.iter().find_map(|need| visit(site, &need.value, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    site.services.names().find_map(|name| visit(site, name, &mut Vec::new(), &mut done))
}

/// The JSON Schema of site files.
pub fn json_schema() -> Json {
    let mut schemas = Schemas::default();
    Site::schema(&mut schemas);
    let root = schemas.defs.remove("Site").unwrap_or_default();
    schemas.document("Piton site", &root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<LoadedSite, Problems> {
        read(&Arc::new(Source { name: "site.yaml".into(), text: text.into() }), Path::new("."))
    }

    const HEAD: &str = "apiVersion: piton/v1\nkind: Site\nname: demo\n";

    #[test]
    fn a_site_is_read() {
        let text = format!(
            "{HEAD}databases: {{ a: {{ url: 'sqlite:a.db' }} }}\npeople:\n  eve: {{ groups: [dba] }}\n  bob: {{}}\n"
        );
        let site = load(&text).expect("valid").site;
        assert_eq!(site.people_in(&["dba".into()], &[]), Some([Actor::new("eve")].into()));
        assert_eq!(site.people_in(&[], &[]), None);
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let text = format!(
            "{HEAD}datebases: {{}}\noptions: {{ o: {{ sql: {{ database: x, table: t }} }} }}\nservices:\n  a: {{ needs: [a], provider: {{ process: {{ argv: [x] }} }} }}\n"
        );
        let problems = load(&text).expect_err("wrong");
        let codes: Vec<_> = problems.list.iter().map(|p| p.code).collect();
        assert_eq!(codes, ["spec::unknown_key", "site::unknown_database", "site::service_cycle"]);
    }
}
