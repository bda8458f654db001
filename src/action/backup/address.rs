//! How an engine's tool is told where to connect: by a service file or an option file that only its owner reads, never by an argument.
//!
//! Refuses what it does not know how to hand on, instead of dropping it, and any value with a control character, which could add lines to
//! such a file. Used by `tools`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use reqwest::Url;
use zeroize::Zeroizing;

use crate::action::wiped::Wiped;
use crate::transfer::Engine;

/// Variables that libpq reads by itself, as the driver of the database does.
const POSTGRES_VARIABLES: [&str; 10] = [
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
];

/// What a PostgreSQL address may say besides where and who, as the driver spells it and as libpq does.
const POSTGRES_SETTINGS: [(&str, &str); 9] = [
    ("sslmode", "sslmode"),
    ("ssl-mode", "sslmode"),
    ("sslrootcert", "sslrootcert"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("sslcert", "sslcert"),
    ("ssl-cert", "sslcert"),
    ("sslkey", "sslkey"),
    ("ssl-key", "sslkey"),
];

/// The same for MariaDB and MySQL, as an option file spells it.
const MARIADB_SETTINGS: [(&str, &str); 8] = [
    ("sslmode", "mode"),
    ("ssl-mode", "mode"),
    ("sslca", "ssl-ca"),
    ("ssl-ca", "ssl-ca"),
    ("sslcert", "ssl-cert"),
    ("ssl-cert", "ssl-cert"),
    ("sslkey", "ssl-key"),
    ("ssl-key", "ssl-key"),
];

/// Settings of the driver that mean nothing to a tool.
const OF_THE_DRIVER: [&str; 6] =
    ["statement-cache-capacity", "application_name", "charset", "collation", "timezone", "time-zone"];

/// The address of a server, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Name of the database.
    pub(crate) database: String,
    user: Option<String>,
    password: Option<Zeroizing<String>>,
    host: Option<String>,
    port: Option<u16>,
    settings: BTreeMap<&'static str, String>,
}

impl Address {
    /// Reads the address of a server.
    ///
    /// # Errors
    /// Why it cannot be handed on, in words without the password.
    pub(crate) fn parse(engine: Engine, text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("the address cannot be read: {error}"))?;
        let plain = |text: &str| decode(text).ok_or_else(|| "the address is not UTF-8".to_owned());
        let host = url.host_str().map(plain).transpose()?;
        let mut address = Self {
            database: plain(url.path().trim_start_matches('/'))?,
            user: Some(plain(url.username())?).filter(|user| !user.is_empty()),
            password: url.password().map(plain).transpose()?.map(Zeroizing::new),
            host: host.map(|host| host.trim_matches(['[', ']']).to_owned()).filter(|host| !host.is_empty()),
            port: url.port(),
            settings: BTreeMap::new(),
        };
        for (key, value) in url.query_pairs() {
            address.take(engine, &key, value.into_owned())?;
        }
        address.check()?;
        Ok(address)
    }

    fn take(&mut self, engine: Engine, key: &str, value: String) -> Result<(), String> {
        let postgres = engine == Engine::Postgres;
        match key {
            "host" | "hostaddr" if postgres => self.host = Some(value),
            "socket" if !postgres => self.host = Some(value),
            "user" if postgres => self.user = Some(value),
            "password" if postgres => self.password = Some(value.into()),
            "dbname" if postgres => self.database = value,
            "port" if postgres => {
                self.port = Some(value.parse().map_err(|_| "the port of the address is no number".to_owned())?);
            }
            key if OF_THE_DRIVER.contains(&key) => {}
            key => {
                let known = if postgres { &POSTGRES_SETTINGS[..] } else { &MARIADB_SETTINGS[..] };
                let found = known.iter().find(|(name, _)| *name == key);
                let (_, name) =
                    found.ok_or_else(|| format!("`{key}` in the address cannot be handed to {engine}'s tools"))?;
                self.settings.insert(name, value);
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.database.is_empty() {
            return Err("the address names no database".into());
        }
        let parts = [Some(&self.database), self.user.as_ref(), self.password.as_deref(), self.host.as_ref()];
        if parts.into_iter().flatten().chain(self.settings.values()).any(|part| part.contains(char::is_control)) {
            return Err("the address has a line break or another control character in it".into());
        }
        Ok(())
    }

    /// The entry `[piton]` of a service file of libpq, without the password.
    pub(crate) fn service_file(&self) -> String {
        let port = self.port.map(|port| port.to_string());
        let given = [
            ("dbname", Some(&self.database)),
            ("host", self.host.as_ref()),
            ("port", port.as_ref()),
            ("user", self.user.as_ref()),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let settings = self.settings.iter().map(|(name, value)| (*name, value));
        given.chain(settings).fold("[piton]\n".to_owned(), |mut text, (name, value)| {
            writeln!(text, "{name}={value}").expect("a string takes any text");
            text
        })
    }

    /// Variables of a tool of libpq: the password, and what this process has of libpq's own.
    pub(crate) fn libpq_variables(&self) -> BTreeMap<String, Wiped> {
        let own = POSTGRES_VARIABLES
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), crate::config::variable(name)?.into())));
        let mut variables: BTreeMap<String, Wiped> = own.collect();
        if let Some(password) = &self.password {
            variables.insert("PGPASSWORD".into(), password.as_str().into());
        }
        variables
    }

    /// An option file for the tools of MariaDB (`product` is `MariaDB`) or MySQL.
    pub(crate) fn option_file(&self, product: &str) -> Zeroizing<String> {
        let mut text = Zeroizing::new("[client]\n".to_owned());
        let mut line = |name: &str, value: &str| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            writeln!(text, "{name}=\"{value}\"").expect("a string takes any text");
        };
        line("user", self.user.as_deref().unwrap_or("root"));
        if let Some(password) = &self.password {
            line("password", password);
        }
        match self.host.as_deref() {
            Some(socket) if socket.starts_with('/') => line("socket", socket),
            host => {
                // A tool takes the name `localhost` for its default socket, the driver for the network.
                line("protocol", "tcp");
                line("host", host.unwrap_or("localhost"));
                line("port", &self.port.unwrap_or(3306).to_string());
            }
        }
        for (name, value) in self.settings.iter().filter(|(name, _)| **name != "mode") {
            line(name, value);
        }
        let mode =
            self.settings.get("mode").map_or("PREFERRED".to_owned(), |mode| mode.to_uppercase().replace('-', "_"));
        if product == "MySQL" {
            line("ssl-mode", &mode);
            return text;
        }
        text.push_str(match mode.as_str() {
            "DISABLED" => "skip-ssl\n",
            "REQUIRED" => "ssl\nssl-verify-server-cert=0\n",
            "VERIFY_CA" | "VERIFY_IDENTITY" => "ssl\nssl-verify-server-cert\n",
            _ => "ssl-verify-server-cert=0\n",
        });
        text
    }
}

/// `%XX` as the bytes that they stand for.
pub(crate) fn decode(text: &str) -> Option<String> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = bytes.get(at + 1).zip(bytes.get(at + 2)).filter(|_| byte == b'%');
        let decoded = code.and_then(|(high, low)| Some(digit(*high)? * 16 + digit(*low)?));
        plain.push(decoded.unwrap_or(byte));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    String::from_utf8(plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(text: &str) -> Result<Address, String> {
        Address::parse(Engine::Postgres, text)
    }

    fn mariadb(text: &str) -> Result<Address, String> {
        Address::parse(Engine::Mariadb, text)
    }

    #[test]
    fn a_service_file_has_everything_but_the_password() {
        let address =
            postgres("postgres://ada:a%3Ab%5Cc@db:6000/w%20fm?sslmode=require&application_name=x").expect("read");
        assert_eq!(address.service_file(), "[piton]\ndbname=w fm\nhost=db\nport=6000\nuser=ada\nsslmode=require\n");
        assert_eq!(&*address.libpq_variables()["PGPASSWORD"], "a:b\\c");
        let socket = postgres("postgres://postgres@localhost/x?host=%2Ftmp%2Fa&port=7").expect("read");
        assert_eq!(socket.service_file(), "[piton]\ndbname=x\nhost=/tmp/a\nport=7\nuser=postgres\n");
        assert!(postgres("postgres://u@[::1]/x").expect("read").service_file().contains("host=::1\n"));
    }

    #[test]
    fn an_option_file_quotes_what_it_holds() {
        let socket = mariadb("mariadb://root:a%22b%5C%23@localhost/wfm?socket=%2Frun%2Fmy.sock&ssl-mode=DISABLED")
            .expect("read");
        let wanted = "[client]\nuser=\"root\"\npassword=\"a\\\"b\\\\#\"\nsocket=\"/run/my.sock\"\nskip-ssl\n";
        assert_eq!(*socket.option_file("MariaDB"), wanted);
        let network = mariadb("mysql://localhost/wfm").expect("read").option_file("MySQL");
        let wanted =
            "[client]\nuser=\"root\"\nprotocol=\"tcp\"\nhost=\"localhost\"\nport=\"3306\"\nssl-mode=\"PREFERRED\"\n";
        assert_eq!(*network, wanted);
    }

    #[test]
    fn only_two_digits_behind_a_percent_sign_are_a_code() {
        let decoded = |text| decode(text).expect("UTF-8");
        assert_eq!(decoded("a%20b%c3%BC"), "a bü");
        assert_eq!(decoded("%+1%-f%4%"), "%+1%-f%4%");
        assert_eq!(decode("%ff"), None);
    }

    #[test]
    fn what_cannot_be_handed_on_is_refused_without_the_password() {
        for text in [
            "postgres://a:secret@db",
            "postgres://a:se%0Acret@db/x",
            "postgres://a%0Ahost=evil:secret@db/x",
            "postgres://a:secret@db/x?sslrootcert=%2Fa%0Auser=b",
            "postgres://a:secret@db/x?port=many",
            "postgres://a:secret@db/x?target_session_attrs=read-write",
            "no address",
        ] {
            let error = postgres(text).expect_err("cannot be used");
            assert!(!error.contains("secret") && !error.contains("cret"), "{error}");
        }
        let error = postgres("postgres://a@db/x?keepalives=1").expect_err("not known");
        assert!(error.contains("`keepalives`"), "{error}");
        assert!(mariadb("mariadb://a@db/x?host=elsewhere").is_err(), "the driver does not know it either");
    }
}
