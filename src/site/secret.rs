//! Where secrets come from. They are fetched late, kept in memory only and never written anywhere.

use std::path::Path;

use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::record;
use crate::spec::decode::Decoder;
use crate::spec::rules::{Choice, exactly_one};
use crate::spec::values::secret;
use crate::spec::yaml::Node;

record! {
    /// Where a secret comes from.
    #[check(check_source)]
    pub struct SecretSource("a secret") {
        /// An environment variable.
        env: Option<String>,
        /// A file, relative to the site file; one newline at its end is dropped.
        file: Option<String>,
        /// A command whose standard output is the secret; any vault's own tool.
        command: Vec<String>,
    }
}

fn check_source(node: &Node, d: &mut Decoder) {
    let choices = [Choice::Value("env"), Choice::Value("file"), Choice::List("command")];
    exactly_one("site::one_of", "a secret", &choices, "`{ env: DB_URL }`", node, d);
}

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The environment variable is missing.
    #[error("secret `{name}`: environment variable `{variable}` is not set")]
    NoVariable {
        /// The secret.
        name: String,
        /// The variable.
        variable: String,
    },
    /// The file cannot be read.
    #[error("secret `{name}`: file `{path}` cannot be read: {source}")]
    NoFile {
        /// The secret.
        name: String,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The command failed.
    #[error("secret `{name}`: command `{program}` failed: {reason}")]
    Command {
        /// The secret.
        name: String,
        /// The program.
        program: String,
        /// Why; never its output.
        reason: String,
    },
}

impl SecretSource {
    /// Reads a reference as a parameter gives it: `env:NAME`, `file:PATH`, `command:PROGRAM ARGUMENT`.
    pub fn from_reference(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let mut source = Self { env: None, file: None, command: Vec::new() };
        match scheme {
            "env" => source.env = Some(rest.to_owned()),
            "file" => source.file = Some(rest.to_owned()),
            "command" => source.command = rest.split_whitespace().map(str::to_owned).collect(),
            _ => return None,
        }
        Some(source)
    }

    /// Fetches the secret; `base` is where relative files start.
    ///
    /// # Errors
    /// When it cannot be had; the message never holds any of it.
    pub async fn fetch(&self, name: &str, base: &Path) -> Result<SecretString, SecretError> {
        let text: Zeroizing<String> = if let Some(variable) = &self.env {
            let value = crate::config::variable(variable);
            value.ok_or_else(|| SecretError::NoVariable { name: name.into(), variable: variable.clone() })?.into()
        } else if let Some(file) = &self.file {
            let path = base.join(file);
            let text = tokio::fs::read_to_string(&path).await;
            let fail = |source| SecretError::NoFile { name: name.into(), path: path.display().to_string(), source };
            text.map_err(fail)?.into()
        } else {
            self.run_command(name, base).await?
        };
        Ok(secret(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
    }

    async fn run_command(&self, name: &str, base: &Path) -> Result<Zeroizing<String>, SecretError> {
        let program = self.command.first().cloned().unwrap_or_default();
        let fail = |reason: String| SecretError::Command { name: name.into(), program: program.clone(), reason };
        let output = tokio::process::Command::new(&program)
            .args(self.command.get(1..).unwrap_or_default())
            .current_dir(base)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| fail(error.to_string()))?;
        if !output.status.success() {
            return Err(fail(format!("{}", output.status)));
        }
        let text = String::from_utf8(output.stdout).map(Zeroizing::new);
        text.map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            fail("its output is not UTF-8".into())
        })
    }
}
