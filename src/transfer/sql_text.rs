//! Reads SQL text just far enough to split it at `;` and to find `:name` parameters.
//!
//! Knows strings, quoted identifiers, comments, PostgreSQL's dollar quotes and `::` casts, MariaDB's escapes, and the `BEGIN .. END` bodies
//! of triggers. Refuses text whose quotes do not close, and comments that MariaDB would execute. Used by `statement`.

use super::engine::Engine;
use super::error::TransferError;

/// One piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text that goes to the engine as it stands; the offset is its first character in the caller's text, from 0.
    Text(usize, String),
    /// A named parameter.
    Bind(usize, String),
}

/// One statement of a text, without its `;`.
#[derive(Debug, Clone, Default)]
pub(super) struct SqlStatement {
    pub(super) pieces: Vec<Piece>,
    /// The first words in upper case, for the few decisions that need them.
    pub(super) words: Vec<String>,
}

/// A statement as an engine reads it, with the way back to the caller's characters.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) text: String,
    spans: Vec<(usize, usize, usize)>,
}

impl Rewritten {
    /// The caller's character (from 1) for the engine's character (from 1).
    pub(super) fn original(&self, position: usize) -> Option<usize> {
        let at = position.checked_sub(1)?;
        let (start, origin, length) = self.spans.iter().rev().find(|(start, ..)| *start <= at)?;
        Some(origin + (at - start).min(length.saturating_sub(1)) + 1)
    }
}

impl SqlStatement {
    /// The names of the parameters in order of first use.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for piece in &self.pieces {
            if let Piece::Bind(_, name) = piece
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        }
        names
    }

    /// Puts `prefix`, the statement and `suffix` together; `bind` renders the parameter with the given index (from 0).
    pub(super) fn render(&self, prefix: &str, suffix: &str, bind: impl Fn(usize) -> String) -> Rewritten {
        let names = self.names();
        let mut text = prefix.to_owned();
        let mut spans = Vec::new();
        let mut length = text.chars().count();
        for piece in &self.pieces {
            let (origin, part, original_length) = match piece {
                Piece::Text(at, part) => (*at, part.clone(), part.chars().count()),
                Piece::Bind(at, name) => {
                    let index = names.iter().position(|known| known == name).expect("names() lists every bind");
                    (*at, bind(index), name.chars().count() + 1)
                }
            };
            spans.push((length, origin, original_length));
            length += part.chars().count();
            text.push_str(&part);
        }
        text.push_str(suffix);
        Rewritten { text, spans }
    }

    /// The first word in upper case, empty for an empty statement.
    pub(super) fn verb(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }
}

struct Scanner<'a> {
    chars: &'a [char],
    at: usize,
    engine: Engine,
    done: Vec<SqlStatement>,
    current: SqlStatement,
    text_start: usize,
    depth: usize,
}

/// Splits `sql` into its statements; empty ones vanish.
pub(super) fn split(sql: &str, engine: Engine) -> Result<Vec<SqlStatement>, TransferError> {
    let chars: Vec<char> = sql.chars().collect();
    let mut scanner = Scanner {
        chars: &chars,
        at: 0,
        engine,
        done: Vec::new(),
        current: SqlStatement::default(),
        text_start: 0,
        depth: 0,
    };
    scanner.run()?;
    Ok(scanner.done)
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn run(&mut self) -> Result<(), TransferError> {
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('\'', _) => self.quoted('\'', self.has_escapes())?,
                // A string on MariaDB, an identifier elsewhere.
                ('"', _) => self.quoted('"', self.engine == Engine::Mariadb)?,
                ('`', _) if self.engine != Engine::Postgres => self.quoted('`', false)?,
                ('#', _) if self.engine == Engine::Mariadb => self.line_comment(),
                // Two dashes are a comment on MariaDB only before a space.
                ('-', Some('-'))
                    if self.engine == Engine::Mariadb && self.peek(2).is_some_and(|c| !c.is_whitespace()) =>
                {
                    self.at += 2;
                }
                ('[', _) if self.engine == Engine::Sqlite => self.quoted(']', false)?,
                ('-', Some('-')) => self.line_comment(),
                ('/', Some('*')) => self.block_comment()?,
                ('$', _) if self.engine == Engine::Postgres => self.dollar()?,
                (':', Some(':')) => self.at += 2,
                (':', Some(next)) if next.is_ascii_alphabetic() || next == '_' => self.bind(),
                (';', _) if self.depth == 0 => {
                    self.finish_statement();
                    self.at += 1;
                    self.text_start = self.at;
                }
                _ if c.is_alphanumeric() || c == '_' => self.word(),
                _ => self.at += 1,
            }
        }
        self.finish_statement();
        Ok(())
    }

    fn has_escapes(&self) -> bool {
        if self.engine == Engine::Mariadb {
            return true;
        }
        let before = |n: usize| self.at.checked_sub(n).map(|i| self.chars[i]);
        self.engine == Engine::Postgres
            && matches!(before(1), Some('e' | 'E'))
            && !before(2).is_some_and(|c| c.is_alphanumeric() || c == '_')
    }

    fn quoted(&mut self, close: char, escapes: bool) -> Result<(), TransferError> {
        let start = self.at;
        self.at += 1;
        while let Some(c) = self.peek(0) {
            if escapes && c == '\\' {
                self.at += 2;
            } else if c == close {
                if self.peek(1) == Some(close) && close != ']' {
                    self.at += 2;
                } else {
                    self.at += 1;
                    return Ok(());
                }
            } else {
                self.at += 1;
            }
        }
        Err(TransferError::statement(format!("the quote opened at character {} does not close", start + 1)))
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.at += 1;
        }
    }

    /// PostgreSQL nests block comments, SQLite does not.
    fn block_comment(&mut self) -> Result<(), TransferError> {
        let start = self.at;
        let mut depth = 1;
        self.at += 2;
        if self.engine == Engine::Mariadb
            && matches!((self.peek(0), self.peek(1)), (Some('!'), _) | (Some('M'), Some('!')))
        {
            return Err(TransferError::statement(format!(
                "the comment at character {} would be executed: write its statement plainly",
                start + 1
            )));
        }
        while depth > 0 {
            match (self.peek(0), self.peek(1)) {
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.at += 2;
                }
                (Some('/'), Some('*')) if self.engine == Engine::Postgres => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(_), _) => self.at += 1,
                (None, _) if self.engine == Engine::Sqlite => return Ok(()),
                (None, _) => {
                    return Err(TransferError::statement(format!(
                        "the comment opened at character {} does not close",
                        start + 1
                    )));
                }
            }
        }
        Ok(())
    }

    fn dollar(&mut self) -> Result<(), TransferError> {
        let rest = &self.chars[self.at + 1..];
        let tag = rest.iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
        let is_quote = rest.get(tag) == Some(&'$') && !rest.first().is_some_and(char::is_ascii_digit);
        if !is_quote {
            self.at += 1;
            return Ok(());
        }
        let start = self.at;
        let delimiter = self.chars[self.at..self.at + tag + 2].to_vec();
        self.at += delimiter.len();
        while self.at + delimiter.len() <= self.chars.len() {
            if self.chars[self.at..].starts_with(&delimiter) {
                self.at += delimiter.len();
                return Ok(());
            }
            self.at += 1;
        }
        Err(TransferError::statement(format!("the dollar quote opened at character {} does not close", start + 1)))
    }

    fn bind(&mut self) {
        self.flush();
        let start = self.at;
        self.at += 1;
        let mut name = String::new();
        while let Some(c) = self.peek(0).filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
            self.at += 1;
        }
        self.current.pieces.push(Piece::Bind(start, name));
        self.text_start = self.at;
    }

    fn word(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            self.at += 1;
        }
        let word = self.chars[start..self.at].iter().collect::<String>().to_uppercase();
        if self.current.words.first().is_some_and(|first| first == "CREATE") {
            match word.as_str() {
                "BEGIN" => self.depth += 1,
                "CASE" if self.depth > 0 => self.depth += 1,
                "END" if self.ends_a_block() => {}
                "END" => {
                    self.depth = self.depth.saturating_sub(1);
                    self.skip_word("CASE");
                }
                _ => {}
            }
        }
        if self.current.words.len() < 8 {
            self.current.words.push(word);
        }
    }

    /// True behind the `END` of MariaDB's `END IF`, `END LOOP`, `END WHILE`, `END REPEAT`, whose beginnings do not count.
    fn ends_a_block(&mut self) -> bool {
        self.engine == Engine::Mariadb && ["IF", "LOOP", "WHILE", "REPEAT"].iter().any(|word| self.skip_word(word))
    }

    /// Steps over the next word if it is this one.
    fn skip_word(&mut self, wanted: &str) -> bool {
        let gap = self.chars[self.at..].iter().take_while(|c| c.is_whitespace()).count();
        let rest = &self.chars[self.at + gap..];
        let length = rest.iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
        let found = rest[..length].iter().collect::<String>().eq_ignore_ascii_case(wanted);
        if found && self.engine == Engine::Mariadb {
            self.at += gap + length;
        }
        found
    }

    fn flush(&mut self) {
        if self.at > self.text_start {
            let text = self.chars[self.text_start..self.at].iter().collect();
            self.current.pieces.push(Piece::Text(self.text_start, text));
        }
    }

    fn finish_statement(&mut self) {
        self.flush();
        let statement = std::mem::take(&mut self.current);
        self.depth = 0;
        let empty = statement.words.is_empty() && !statement.pieces.iter().any(|p| matches!(p, Piece::Bind(..)));
        if !empty {
            self.done.push(statement);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(sql: &str, engine: Engine) -> (String, Vec<String>) {
        let statements = split(sql, engine).expect("readable");
        assert_eq!(statements.len(), 1, "{statements:?}");
        let names = statements[0].names();
        (statements[0].render("", "", |i| format!("${}", i + 1)).text, names)
    }

    #[test]
    fn names_become_numbers_and_nothing_else_is_touched() {
        let sql = "select ':no', \":no\", a::int -- :no\n, /* :no /* :no */ */ :yes, $$ :no; $$, $t$:no$t$, e'\\':no' from t where b = :yes and c=:c_2";
        let (text, names) = one(sql, Engine::Postgres);
        assert_eq!(names, ["yes", "c_2"]);
        assert_eq!(text.matches("$1").count(), 2);
        assert!(text.ends_with("c=$2") && text.contains("a::int") && text.contains("':no'"));
    }

    #[test]
    fn sqlite_brackets_and_backticks_are_identifiers() {
        let (text, names) = one("select [a:b], `c:d` from t where x = :x", Engine::Sqlite);
        assert_eq!(names, ["x"]);
        assert!(text.starts_with("select [a:b], `c:d`"));
    }

    #[test]
    fn statements_part_at_semicolons_outside_of_trigger_bodies() {
        let sql = "insert into t values (';'); create trigger g after insert on t begin select case when 1 then 2 end; delete from u; end; ; select 1;";
        let parts = split(sql, Engine::Sqlite).expect("readable");
        assert_eq!(parts.iter().map(SqlStatement::verb).collect::<Vec<_>>(), ["INSERT", "CREATE", "SELECT"]);
    }

    #[test]
    fn mariadb_reads_quotes_dashes_and_bodies_its_own_way() {
        let (text, names) = one("select \"it\\\"s :no\", 'a\\':no', `b:c`, 5--1, :yes # :no\n-- :no", Engine::Mariadb);
        assert_eq!(names, ["yes"]);
        assert!(text.contains("5--1, $1"), "{text}");
        let sql = "create procedure p() begin if 1 then select 1; end if; while 0 do select 2; end while; \
                   case 1 when 1 then select 3; end case; end; select 4;";
        let parts = split(sql, Engine::Mariadb).expect("readable");
        assert_eq!(parts.iter().map(SqlStatement::verb).collect::<Vec<_>>(), ["CREATE", "SELECT"]);
        assert!(split("/*! drop table t */", Engine::Mariadb).is_err());
        assert!(split("select 1 /*M!100000 , 2 */", Engine::Mariadb).is_err());
    }

    #[test]
    fn an_open_quote_is_an_error_and_not_a_bind() {
        let error = split("select 'a from t where b = :c", Engine::Sqlite).expect_err("open");
        assert!(error.to_string().contains("character 8"), "{error}");
    }

    #[test]
    fn positions_lead_back_to_the_callers_text() {
        let statement = split("select :aa + nope", Engine::Postgres).expect("readable").remove(0);
        let text = statement.render("select * from (", ") q", |_| "(($1::text)::int8)".to_owned());
        let engine_at = text.text.find("nope").expect("there") + 1;
        assert_eq!(text.original(engine_at), Some(14));
    }
}
