//! A network between the program and a private server: a TCP port whose bytes go to the server's socket, until the line is cut or
//! stalled, at once or in the middle of a message after so many bytes.
//!
//! A line that is cut closes every connection and takes no new one; one that is stalled keeps them open and carries nothing. Ends with its
//! owner.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toward {
    Server,
    Client,
}

/// What a line does to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Carries,
    Cut,
    Stalled,
}

/// The state of the line; connections of an earlier age are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    mode: Mode,
    age: u64,
}

/// When the line breaks, and how.
#[derive(Debug, Clone, Copy)]
struct Break {
    toward: Toward,
    after: u64,
    then: Mode,
}

struct Line {
    server: PathBuf,
    state: watch::Sender<State>,
    breaks: watch::Sender<Option<Break>>,
    passed: [AtomicU64; 2],
}

/// The line to one server.
pub(crate) struct Proxy {
    line: Arc<Line>,
    port: u16,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Proxy {
    /// A line to the server of this address of a private server, and the address that goes over it.
    pub(crate) fn before(url: &str) -> (Self, String) {
        let (start, query) = url.split_once('?').expect("a private server is reached by its socket");
        let (kind, socket) = query.split_once('=').expect("a socket is named");
        let socket = PathBuf::from(socket.replace("%2F", "/"));
        let server = if kind == "host" { socket.join(".s.PGSQL.5432") } else { socket };
        let proxy = Self::to(server);
        let address = start.replacen("@localhost/", &format!("@127.0.0.1:{}/", proxy.port), 1);
        (proxy, address)
    }

    fn to(server: PathBuf) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let line = Arc::new(Line {
            server,
            state: watch::Sender::new(State { mode: Mode::Carries, age: 0 }),
            breaks: watch::Sender::new(None),
            passed: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket of ours");
        let port = listener.local_addr().expect("it is bound").port();
        // Tests have a runtime of their own, which must not be blocked in.
        let inside = runtime.enter();
        let listener = TcpListener::from_std(listener).expect("a socket of ours");
        drop(inside);
        runtime.spawn(Arc::clone(&line).accept(listener));
        Self { line, port, runtime: Some(runtime) }
    }

    /// Breaks every connection once so many bytes have gone that way since the line was mended.
    pub(crate) fn cut_after(&self, toward: Toward, after: u64) {
        self.line.breaks.send_replace(Some(Break { toward, after, then: Mode::Cut }));
    }

    /// Carries nothing any more once so many bytes have gone that way since the line was mended.
    pub(crate) fn stall_after(&self, toward: Toward, after: u64) {
        self.line.breaks.send_replace(Some(Break { toward, after, then: Mode::Stalled }));
    }

    /// Ends what is left of earlier connections and carries new ones; counts from 0 again.
    pub(crate) fn mend(&self) {
        self.line.breaks.send_replace(None);
        self.line.turn(Mode::Carries);
        self.line.passed.iter().for_each(|passed| passed.store(0, Ordering::SeqCst));
    }

    /// Whether the line carries bytes.
    pub(crate) fn is_whole(&self) -> bool {
        self.line.state.borrow().mode == Mode::Carries
    }

    /// Bytes that went that way since the line was mended.
    pub(crate) fn passed(&self, toward: Toward) -> u64 {
        self.line.passed[toward as usize].load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Line {
    fn turn(&self, mode: Mode) {
        self.state.send_modify(|state| *state = State { mode, age: state.age + u64::from(mode != Mode::Stalled) });
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            if self.state.borrow().mode == Mode::Carries {
                let line = Arc::clone(&self);
                tokio::spawn(async move { line.connect(client).await });
            }
        }
    }

    async fn connect(&self, client: TcpStream) {
        let Ok(server) = UnixStream::connect(&self.server).await else { return };
        let _ = client.set_nodelay(true);
        let age = self.state.borrow().age;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // Either end of a connection ends the other.
        tokio::select! {
            () = self.carry(from_client, to_server, Toward::Server, age) => {}
            () = self.carry(from_server, to_client, Toward::Client, age) => {}
        }
    }

    async fn carry(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, toward: Toward, age: u64) {
        let mut state = self.state.subscribe();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = tokio::select! {
                _ = state.wait_for(|state| state.age != age) => return,
                read = from.read(&mut buffer) => read,
            };
            let Ok(read @ 1..) = read else { return };
            let allowed = self.allow(toward, read);
            if self.state.borrow().mode == Mode::Stalled && allowed == 0 {
                let _ = state.wait_for(|state| state.age != age).await;
                return;
            }
            if to.write_all(&buffer[..allowed]).await.is_err() || to.flush().await.is_err() {
                return;
            }
            if allowed < read {
                // The last bytes that got through are on their way before the connection breaks.
                let broken = *self.breaks.borrow();
                self.turn(broken.map_or(Mode::Cut, |broken| broken.then));
            }
        }
    }

    /// How many of these bytes get through.
    fn allow(&self, toward: Toward, read: usize) -> usize {
        if self.state.borrow().mode != Mode::Carries {
            return 0;
        }
        let wanted = u64::try_from(read).expect("a buffer is small");
        let before = self.passed[toward as usize].fetch_add(wanted, Ordering::SeqCst);
        match *self.breaks.borrow() {
            Some(Break { toward: way, after, .. }) if way == toward => {
                usize::try_from(after.saturating_sub(before).min(wanted)).expect("at most the buffer")
            }
            _ => read,
        }
    }
}
