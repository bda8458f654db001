//! A connection to a PostgreSQL source beside the driver's: it joins the snapshot of a session and hands over the rows of a binary COPY, nothing copied.
//!
//! A server sends a message for each row, and a future and a counted buffer for each of them take the driver longer than the server takes to make it.
//! Reads only. Refuses a server that speaks TLS: it is read by the session. Used by `copy`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::ops::{ControlFlow, Range};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;

/// How long the way to the first row may take at each of its turns.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where the transaction goes back to before it reads the next table: what it locked and set for the one before is undone with that.
const TURN: &str = "piton_table";
/// Bytes that are read at once; a longer message makes it longer.
const BUFFER: usize = 256 * 1024;
/// What a message begins with: its tag and its length, which counts itself but not the tag.
const HEAD: usize = 5;

/// The connection, within its one transaction.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    buffer: Vec<u8>,
    /// What of the buffer is filled and not yet taken.
    filled: Range<usize>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Closes the connection of a stream from elsewhere when it goes, unless it is released.
#[derive(Debug)]
pub(super) struct Closer(Option<Socket>);

/// Where a server is and who asks.
struct Address {
    socket: Option<PathBuf>,
    host: String,
    port: u16,
    user: String,
    database: Option<String>,
    password: Option<SecretString>,
    options: Option<String>,
    /// Whether the server is to be asked for TLS.
    asks: bool,
}

impl Address {
    /// None where the connection must not be without TLS.
    fn of(options: &PgConnectOptions) -> Option<Self> {
        let asks = match options.get_ssl_mode() {
            // As the driver understands them.
            PgSslMode::Disable | PgSslMode::Allow => false,
            PgSslMode::Prefer => true,
            PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => return None,
        };
        let (host, port) = (options.get_host().to_owned(), options.get_port());
        let folder = options.get_socket().cloned().or_else(|| host.starts_with('/').then(|| PathBuf::from(&host)));
        // The one way in which the driver gives it away.
        let url = options.to_url_lossy();
        let password = url.password().map(|text| percent_encoding::percent_decode_str(text).decode_utf8_lossy());
        Some(Self {
            socket: folder.map(|folder| folder.join(format!(".s.PGSQL.{port}"))),
            host,
            port,
            user: options.get_username().to_owned(),
            database: options.get_database().map(str::to_owned),
            password: password.map(|text| SecretString::from(text.into_owned())),
            options: options.get_options().map(str::to_owned),
            asks,
        })
    }

    fn connect(&self) -> io::Result<Socket> {
        if let Some(path) = &self.socket {
            return UnixStream::connect(path).map(Socket::Unix);
        }
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    return Ok(Socket::Tcp(socket));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Socket {
    fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.set_read_timeout(patience),
            Self::Tcp(socket) => socket.set_read_timeout(patience),
        }
    }

    fn another(&self) -> io::Result<Self> {
        match self {
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
        }
    }

    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(to),
            Self::Tcp(socket) => socket.read(to),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.write_all(bytes),
            Self::Tcp(socket) => socket.write_all(bytes),
        }
    }
}

impl Closer {
    /// Leaves the connection as it is.
    pub(super) fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        // A connection that is closed already is closed.
        let _ = match &self.0 {
            Some(Socket::Unix(socket)) => socket.shutdown(Shutdown::Both),
            Some(Socket::Tcp(socket)) => socket.shutdown(Shutdown::Both),
            None => Ok(()),
        };
    }
}

impl Stream {
    /// Joins an exported snapshot to read `table`, with `settings` for its one transaction; none where that cannot be had at once.
    pub(super) async fn join(from: &Database, snapshot: &str, table: &str, settings: &[&str]) -> Option<Self> {
        let Database::Postgres(pool) = from else { return None };
        let address = Address::of(&pool.connect_options())?;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{snapshot}'; \
             SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SAVEPOINT {TURN}; {}",
            turn(table, settings)
        );
        match tokio::task::spawn_blocking(move || Self::open(&address, &begin)).await.ok()? {
            Ok(stream) => Some(stream),
            Err(why) => {
                tracing::debug!("the source is read by a session of the driver: {why}");
                None
            }
        }
    }

    /// Goes on with another table of the same snapshot, as [`join`](Self::join) does with the first; none where that cannot be had at once.
    pub(super) async fn turn_to(mut self, table: &str, settings: &[&str]) -> Option<Self> {
        let turn = format!("ROLLBACK TO SAVEPOINT {TURN}; {}", turn(table, settings));
        let turned = tokio::task::spawn_blocking(move || {
            self.socket.set_patience(Some(PATIENCE)).map_err(lost)?;
            self.run(&turn).map(|()| self)
        });
        let turned: Result<Self, TransferError> = turned.await.ok()?;
        turned.inspect_err(|why| tracing::debug!("a connection to the source is given up: {why}")).ok()
    }

    fn open(address: &Address, begin: &str) -> Result<Self, TransferError> {
        let socket = address.connect().map_err(lost)?;
        socket.set_patience(Some(PATIENCE)).map_err(lost)?;
        let mut stream = Self { socket, buffer: vec![0; BUFFER], filled: 0..0 };
        if address.asks {
            stream.ask_for_no_tls().map_err(lost)?;
        }
        stream.sign_in(address)?;
        stream.run(begin)?;
        Ok(stream)
    }

    /// The server answers with one byte whether it speaks TLS (<https://www.postgresql.org/docs/current/protocol-flow.html>).
    fn ask_for_no_tls(&mut self) -> io::Result<()> {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        self.socket.write_all(&request)?;
        let mut answer = [0];
        let read = self.socket.read(&mut answer)?;
        if read == 1 && answer == *b"N" { Ok(()) } else { Err(io::Error::other("the server speaks TLS")) }
    }

    fn sign_in(&mut self, address: &Address) -> Result<(), TransferError> {
        let database = address.database.as_deref().unwrap_or(&address.user);
        let mut parameters = vec![
            ("user", address.user.as_str()),
            ("database", database),
            ("application_name", super::own::application()),
            ("client_encoding", "UTF8"),
        ];
        parameters.extend(address.options.as_deref().map(|options| ("options", options)));
        self.send(|buffer| frontend::startup_message(parameters, buffer))?;
        let password = address.password.as_ref().map_or("", |password| password.expose_secret()).as_bytes();
        let mut scram = None;
        loop {
            let (tag, body) = self.answer()?;
            match tag {
                b'Z' => return Ok(()),
                b'R' => {
                    let body = self.at(body).to_vec();
                    self.prove(&body, address, password, &mut scram)?;
                }
                // Settings of the server, the number of the session, notices.
                _ => {}
            }
        }
    }

    /// Answers one request of the server to prove who asks; the numbers are PostgreSQL's.
    fn prove(
        &mut self,
        request: &[u8],
        address: &Address,
        password: &[u8],
        scram: &mut Option<ScramSha256>,
    ) -> Result<(), TransferError> {
        let odd = || lost(io::Error::other("the server asks for a proof that is not known here"));
        let (kind, data) = request.split_first_chunk::<4>().ok_or_else(odd)?;
        match (i32::from_be_bytes(*kind), scram) {
            (0, _) => Ok(()),
            (3, _) => self.send(|buffer| frontend::password_message(password, buffer)),
            (5, _) => {
                let salt = *data.first_chunk::<4>().ok_or_else(odd)?;
                let hash = md5_hash(address.user.as_bytes(), password, salt);
                self.send(|buffer| frontend::password_message(hash.as_bytes(), buffer))
            }
            (10, scram) if data.split(|byte| *byte == 0).any(|name| name == sasl::SCRAM_SHA_256.as_bytes()) => {
                let begun = scram.insert(ScramSha256::new(password, ChannelBinding::unsupported()));
                let first = begun.message().to_vec();
                self.send(|buffer| frontend::sasl_initial_response(sasl::SCRAM_SHA_256, &first, buffer))
            }
            (11, Some(scram)) => {
                scram.update(data).map_err(lost)?;
                self.send(|buffer| frontend::sasl_response(scram.message(), buffer))
            }
            (12, Some(scram)) => scram.finish(data).map_err(lost),
            _ => Err(odd()),
        }
    }

    fn send(&mut self, put: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), TransferError> {
        let mut buffer = BytesMut::new();
        put(&mut buffer).and_then(|()| self.socket.write_all(&buffer)).map_err(lost)
    }

    /// Runs statements that give no rows.
    fn run(&mut self, sql: &str) -> Result<(), TransferError> {
        self.send(|buffer| frontend::query(sql, buffer))?;
        while self.answer()?.0 != b'Z' {}
        Ok(())
    }

    /// What ends from elsewhere whatever this connection is at.
    pub(super) fn closer(&self) -> Result<Closer, TransferError> {
        self.socket.another().map(|socket| Closer(Some(socket))).map_err(lost)
    }

    /// Hands the data of every message of `COPY .. TO STDOUT` to `take`, until there is no more or it has enough; false where it had enough, and the
    /// connection is of no further use. The server may not be silent for longer than `patience`. Blocks its thread.
    pub(super) fn each_row(
        &mut self,
        sql: &str,
        patience: Option<Duration>,
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<bool, TransferError> {
        self.socket.set_patience(patience).map_err(lost)?;
        self.send(|buffer| frontend::query(sql, buffer))?;
        loop {
            match self.message() {
                Ok((b'd', data)) => {
                    if take(self.at(data)).is_break() {
                        return Ok(false);
                    }
                }
                Ok((b'E', body)) => return Err(refusal(self.at(body))),
                Ok((b'Z', _)) => return Ok(true),
                Ok(_) => {}
                Err(error) => return Err(silence(&error, patience).unwrap_or_else(|| lost(error))),
            }
        }
    }

    /// The next message that is no refusal.
    fn answer(&mut self) -> Result<(u8, Range<usize>), TransferError> {
        let (tag, body) = self.message().map_err(lost)?;
        if tag == b'E' { Err(refusal(self.at(body))) } else { Ok((tag, body)) }
    }

    /// The next message: its tag, and where in the buffer its body stands.
    fn message(&mut self) -> io::Result<(u8, Range<usize>)> {
        let mut wanted = HEAD;
        loop {
            let there = self.at(self.filled.clone());
            if let Some([tag, length @ ..]) = there.first_chunk::<HEAD>() {
                let (tag, length) = (*tag, usize::try_from(i32::from_be_bytes(*length)));
                wanted = 1 + length.map_err(|_| io::ErrorKind::InvalidData)?;
                if wanted < HEAD {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if there.len() >= wanted {
                    let body = self.filled.start + HEAD..self.filled.start + wanted;
                    self.filled.start = body.end;
                    return Ok((tag, body));
                }
            }
            self.fill(wanted)?;
        }
    }

    fn at(&self, place: Range<usize>) -> &[u8] {
        self.buffer.get(place).unwrap_or_default()
    }

    /// Reads what is there; afterwards the buffer has room for a message of so many bytes.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let room = self.buffer.get_mut(self.filled.end..).unwrap_or_default();
        let read = loop {
            match self.socket.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.filled.end += read;
        Ok(())
    }
}

/// What a transaction runs before it reads `table` with those settings. The session that holds the snapshot holds the table already: whoever waits to lock
/// it against that session must not come in between.
fn turn(table: &str, settings: &[&str]) -> String {
    format!("LOCK TABLE {table} IN ACCESS SHARE MODE NOWAIT; {}", settings.join("; "))
}

fn lost(error: io::Error) -> TransferError {
    TransferError::sql(Engine::Postgres, &sqlx::Error::Io(error))
}

/// The end of the patience with which something was waited for.
fn silence(error: &io::Error, patience: Option<Duration>) -> Option<TransferError> {
    let is_over = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    patience.filter(|_| is_over).map(|after| TransferError::Timeout { after, effect_unknown: false })
}

/// What the server says of an error: fields of one letter and a text each.
fn refusal(body: &[u8]) -> TransferError {
    let field = |letter: u8| {
        let fields = body.split(|byte| *byte == 0);
        let found = fields.filter_map(|field| field.split_first()).find(|(first, _)| **first == letter);
        found.map(|(_, text)| String::from_utf8_lossy(text).into_owned())
    };
    TransferError::said(Engine::Postgres, &field(b'M').unwrap_or_default(), field(b'D').as_deref(), field(b'C'), None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::str::FromStr as _;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = i32::try_from(body.len() + 4).expect("a short message").to_be_bytes();
        [&[tag], length.as_slice(), body].concat()
    }

    /// The stream of a server that says `said` in pieces of so many bytes and then closes the connection, or is silent for a while.
    fn stream(said: Vec<u8>, piece: usize, silence: Duration) -> Stream {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        std::thread::spawn(move || {
            let mut ignored = [0; 1_024];
            let _ = there.read(&mut ignored);
            for piece in said.chunks(piece) {
                let _ = there.write_all(piece);
            }
            std::thread::sleep(silence);
        });
        Stream { socket: Socket::Unix(here), buffer: vec![0; 16], filled: 0..0 }
    }

    fn read(mut stream: Stream, patience: Option<Duration>) -> (Vec<Vec<u8>>, Result<bool, TransferError>) {
        let mut rows = Vec::new();
        let take = |row: &[u8]| {
            rows.push(row.to_vec());
            ControlFlow::Continue(())
        };
        let done = stream.each_row("COPY t TO STDOUT", patience, take);
        (rows, done)
    }

    #[test]
    fn rows_come_whole_however_their_bytes_arrive() {
        let long = vec![7; 5_000];
        let said = [
            message(b'N', b"SNOTICE\0\0"),
            message(b'H', &[1, 0, 0]),
            message(b'd', b"one"),
            message(b'd', &long),
            message(b'd', b""),
            message(b'c', b""),
            message(b'C', b"COPY 3\0"),
            message(b'Z', b"T"),
        ]
        .concat();
        for piece in [1, 3, 5, 64, 100_000] {
            let (rows, done) = read(stream(said.clone(), piece, Duration::ZERO), None);
            assert!(done.expect("is read"), "to its end");
            assert_eq!(rows, [b"one".to_vec(), long.clone(), Vec::new()], "in pieces of {piece}");
        }
    }

    #[test]
    fn whoever_has_enough_gets_no_more() {
        let said = [message(b'd', b"one"), message(b'd', b"two")].concat();
        let mut seen = 0;
        let take = |_: &[u8]| {
            seen += 1;
            ControlFlow::Break(())
        };
        let is_whole = stream(said, 64, Duration::ZERO).each_row("COPY t TO STDOUT", None, take).expect("is left");
        assert_eq!((seen, is_whole), (1, false));
    }

    #[test]
    fn a_refusal_a_torn_message_and_a_silence_are_errors_of_their_own() {
        let refused = message(b'E', b"SERROR\0C40001\0Mit cannot be\0Dsaid so\0\0");
        let (_, refused) = read(stream([message(b'd', b"one"), refused].concat(), 64, Duration::ZERO), None);
        let Err(TransferError::Sql { message: why, code, effect_unknown, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!((why.as_str(), code.as_deref(), effect_unknown), ("it cannot be (said so)", Some("40001"), false));
        let (rows, torn) = read(stream(message(b'd', b"one")[..6].to_vec(), 64, Duration::ZERO), None);
        assert!(rows.is_empty(), "half a row is none");
        assert!(matches!(torn, Err(TransferError::Sql { code: None, .. })), "{torn:?}");
        let (_, wrong) = read(stream(vec![b'd', 0xff, 0xff, 0xff, 0xff], 64, Duration::ZERO), None);
        assert!(wrong.is_err(), "a message of less than nothing");
        let patience = Duration::from_millis(50);
        let (rows, silent) = read(stream(message(b'd', b"one"), 64, Duration::from_secs(5)), Some(patience));
        assert_eq!(rows.len(), 1);
        assert!(matches!(silent, Err(TransferError::Timeout { after, .. }) if after == patience), "{silent:?}");
    }

    #[test]
    fn a_closer_that_goes_ends_a_read_and_one_that_is_released_does_not() {
        let waiting = stream(Vec::new(), 64, Duration::from_secs(5));
        let closer = waiting.closer().expect("is made");
        let reader = std::thread::spawn(move || read(waiting, None).1);
        std::thread::sleep(Duration::from_millis(20));
        drop(closer);
        assert!(reader.join().expect("ends").is_err(), "long before the server would say anything");
        let said = [message(b'd', b"one"), message(b'Z', b"T")].concat();
        let left = stream(said, 64, Duration::ZERO);
        left.closer().expect("is made").release();
        assert!(read(left, None).1.expect("is read"));
    }

    /// What `open` says to a server that answers each message with the next of `answers`; with it what the server heard.
    fn sign_in(url: &str, answers: Vec<Vec<u8>>) -> (Result<Stream, TransferError>, Vec<Vec<u8>>) {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).expect("listens");
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("somebody comes");
            let mut heard = Vec::new();
            for answer in answers {
                let mut buffer = vec![0; 4_096];
                let read = peer.read(&mut buffer).unwrap_or(0);
                heard.push(buffer.split_at(read).0.to_vec());
                let _ = peer.write_all(&answer);
            }
            heard
        });
        let options = PgConnectOptions::from_str(url).expect("is an address").socket(folder.path());
        let opened = Stream::open(&Address::of(&options).expect("may be without TLS"), "BEGIN");
        (opened, server.join().expect("ends"))
    }

    #[test]
    fn a_server_that_speaks_tls_is_left_to_the_driver() {
        let (opened, heard) = sign_in("postgres://ann@h/db?sslmode=prefer", vec![b"S".to_vec()]);
        assert!(opened.expect_err("is not spoken").to_string().contains("speaks TLS"));
        assert_eq!(heard, [[0, 0, 0, 8, 4, 210, 22, 47]], "and nothing else was said to it");
        for mode in ["require", "verify-ca", "verify-full"] {
            let options =
                PgConnectOptions::from_str(&format!("postgres://ann@h/db?sslmode={mode}")).expect("an address");
            assert!(Address::of(&options).is_none(), "{mode}");
        }
    }

    #[test]
    fn a_password_is_given_as_the_server_wants_it() {
        let (accepted, ready) = (message(b'R', &[0; 4]), message(b'Z', b"I"));
        let end = [accepted, ready.clone()].concat();
        let plain = vec![b"N".to_vec(), message(b'R', &[0, 0, 0, 3]), end.clone(), ready.clone()];
        let (opened, heard) = sign_in("postgres://ann:s%40cret@h/db", plain);
        opened.expect("is let in");
        let parts: Vec<&[u8]> = heard[1].split(|byte| *byte == 0).collect();
        assert!(parts.contains(&b"ann".as_slice()) && parts.contains(&b"db".as_slice()), "{parts:?}");
        assert_eq!(heard[2], message(b'p', b"s@cret\0"));
        assert_eq!(heard[3], message(b'Q', b"BEGIN\0"));
        let hashed = vec![b"N".to_vec(), message(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]), end, ready];
        let (opened, heard) = sign_in("postgres://ann:secret@h/db", hashed);
        opened.expect("is let in");
        // md5 of the hex of md5("secretann") and the salt.
        assert_eq!(heard[2], message(b'p', b"md59009ce60b9ca97f1e752376843d1309e\0"));
        let unknown = vec![b"N".to_vec(), message(b'R', &[0, 0, 0, 7])];
        let (opened, _) = sign_in("postgres://ann@h/db", unknown);
        assert!(opened.expect_err("is not known").to_string().contains("not known here"));
    }
}
