//! `http.request`: one request, its expected answer, outputs from it.
//!
//! Reads a bounded part of the answer. Requests that change things carry an idempotency key that stays the same over all
//! attempts of a step. Called by the driver; notifications send through here too.

use std::sync::OnceLock;

use async_trait::async_trait;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Action, Context, Failure, Preview};
use crate::event::{Effect, Finding, Outputs};
use crate::spec::actions::{HttpRequest, ResponseRule};

/// Most bytes read of an answer.
pub const BODY_MAX: usize = 1024 * 1024;

/// Header that lets a server tell a repeated request from a new one.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// An answer as far as it was read.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    cut: bool,
}

/// A request that is ready to go.
pub(crate) struct Prepared {
    method: Method,
    request: reqwest::RequestBuilder,
}

impl Prepared {
    /// A request of `cx`'s step; the same key in every attempt.
    pub(crate) fn new(cx: &Context, method: &str, url: &str) -> Result<Self, Failure> {
        let upper = method.to_ascii_uppercase();
        let method = Method::from_bytes(upper.as_bytes())
            .map_err(|_| Failure::permanent(format!("`{method}` is no HTTP method")))?;
        let url = Url::parse(url).map_err(|error| Failure::permanent(format!("the address is no URL: {error}")))?;
        let mut request = client(&url)?.request(method.clone(), url);
        if !method.is_safe() {
            let key = Sha256::digest(format!("{}\n{}", cx.run, cx.step));
            request = request.header(IDEMPOTENCY_KEY, hex::encode(&key[..16]));
        }
        Ok(Self { method, request })
    }

    pub(crate) fn with(mut self, change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder) -> Self {
        self.request = change(self.request);
        self
    }

    /// What is known after a failure behind which the server may have acted.
    fn effect(&self) -> Effect {
        if self.method.is_safe() { Effect::None } else { Effect::Unknown }
    }

    /// Sends it and reads the answer, until the attempt must end.
    pub(crate) async fn send(self, cx: &Context) -> Result<Answer, Failure> {
        let effect = self.effect();
        let exchange = async {
            let mut response = self.request.send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let mut body = Vec::new();
            let mut cut = false;
            while let Some(chunk) = response.chunk().await? {
                let room = BODY_MAX - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    cut = true;
                    break;
                }
            }
            Ok(Answer { status, headers, body, cut })
        };
        tokio::select! {
            answer = exchange => answer.map_err(|error: reqwest::Error| {
                // Without a connection nothing was sent, whatever the method.
                let unsent = error.is_connect() || error.is_builder();
                Failure {
                    error: cx.masker.text(&format!("no answer: {}", chain(&error.without_url()))),
                    effect: if unsent { Effect::None } else { effect },
                    retryable: true,
                }
            }),
            () = cx.cancel.cancelled() => {
                Err(Failure { error: "stopped before the answer was read".into(), effect, retryable: true })
            }
        }
    }
}

#[async_trait]
impl Action for HttpRequest {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        if self.body.is_some() && self.json.is_some() {
            return Err(Failure::permanent("a request has one of `body` and `json`"));
        }
        let prepared = Prepared::new(cx, &self.method, self.url.expose())?.with(|mut request| {
            if let Some(json) = &self.json {
                request = request.json(json);
            }
            if let Some(body) = &self.body {
                request = request.body(body.expose().to_owned());
            }
            self.headers.iter().fold(request, |request, (name, value)| request.header(name, value.expose()))
        });
        let effect = prepared.effect();
        let answer = prepared.send(cx).await?;
        let expected = if self.expect.status.is_empty() {
            answer.status.is_success()
        } else {
            self.expect.status.contains(&answer.status.as_u16())
        };
        if !expected {
            return Err(Failure {
                error: cx.masker.text(&answer.describe()),
                effect,
                retryable: may_pass(answer.status),
            });
        }
        let mut outputs = Outputs::new();
        for (name, rule) in &self.outputs {
            let value = answer.take(rule).map_err(|why| Failure {
                error: cx.masker.text(&format!("answered {}, but output `{name}`: {why}", answer.status)),
                effect,
                retryable: true,
            })?;
            outputs.insert(name.clone(), cx.masker.json(value));
        }
        Ok(outputs)
    }

    async fn probe(&self, _cx: &Context, _before: &Value) -> Finding {
        let safe = Method::from_bytes(self.method.to_ascii_uppercase().as_bytes()).is_ok_and(|method| method.is_safe());
        if safe { Finding::NotDone } else { Finding::Unknown }
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        if self.method.eq_ignore_ascii_case("GET") || self.method.eq_ignore_ascii_case("HEAD") {
            return Preview::NoChange("only asks".into());
        }
        Preview::Unknown("what a server does cannot be told beforehand".into())
    }
}

impl Answer {
    /// The status and the beginning of the body, for an error message.
    pub(crate) fn describe(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
        if text.is_empty() { format!("answered {}", self.status) } else { format!("answered {}: {text}", self.status) }
    }

    fn take(&self, rule: &ResponseRule) -> Result<Value, String> {
        if rule.status {
            return Ok(Value::from(self.status.as_u16()));
        }
        if let Some(name) = &rule.header {
            let value = self.headers.get(name).ok_or_else(|| format!("the answer has no header `{name}`"))?;
            return Ok(Value::from(String::from_utf8_lossy(value.as_bytes())));
        }
        if self.cut {
            return Err(format!("the answer is longer than {BODY_MAX} bytes"));
        }
        if let Some(pointer) = &rule.json {
            let value: Value =
                serde_json::from_slice(&self.body).map_err(|error| format!("the answer is no JSON: {error}"))?;
            return value.pointer(pointer).cloned().ok_or_else(|| format!("the answer has no `{pointer}`"));
        }
        Ok(Value::from(String::from_utf8_lossy(&self.body)))
    }
}

/// Whether a refused request may be accepted another time.
fn may_pass(status: StatusCode) -> bool {
    let asks_for_patience = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    !status.is_client_error() || asks_for_patience.contains(&status)
}

/// One client for all requests of the process; plain HTTP works even where no root certificate can be found.
fn client(url: &Url) -> Result<&'static Client, Failure> {
    static SECURE: OnceLock<Result<Client, String>> = OnceLock::new();
    static PLAIN: OnceLock<Result<Client, String>> = OnceLock::new();
    // An earlier default of the process is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || Client::builder().user_agent(concat!("piton/", env!("CARGO_PKG_VERSION")));
    let mut made = SECURE.get_or_init(|| builder().build().map_err(|error| chain(&error)));
    if made.is_err() && url.scheme() == "http" {
        made = PLAIN.get_or_init(|| builder().tls_certs_only([]).build().map_err(|error| chain(&error)));
    }
    made.as_ref().map_err(|error| Failure::permanent(format!("no HTTP client: {error}")))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::mask::Masker;
    use super::super::testing::{Place, serve};
    use super::*;
    use crate::spec::actions::ExpectStatus;
    use crate::spec::values::SecretText;

    fn request(method: &str, url: &str) -> HttpRequest {
        HttpRequest {
            method: method.into(),
            url: SecretText::new(url.into()),
            headers: BTreeMap::new(),
            body: None,
            json: None,
            expect: ExpectStatus { status: Vec::new() },
            outputs: BTreeMap::new(),
        }
    }

    fn rule() -> ResponseRule {
        ResponseRule { json: None, header: None, status: false, body: false }
    }

    #[tokio::test]
    async fn outputs_come_from_the_answer() {
        let place = Place::new();
        let (url, _seen) = serve("HTTP/1.1 201 Created\r\nx-id: 7\r\ncontent-length: 12\r\n\r\n{\"a\":[1, 2]}").await;
        let mut action = request("GET", &url);
        action.outputs = BTreeMap::from([
            ("second".into(), ResponseRule { json: Some("/a/1".into()), ..rule() }),
            ("id".into(), ResponseRule { header: Some("X-Id".into()), ..rule() }),
            ("status".into(), ResponseRule { status: true, ..rule() }),
            ("body".into(), ResponseRule { body: true, ..rule() }),
        ]);
        let outputs = action.run(&place.cx, &Value::Null).await.expect("answers");
        assert_eq!((&outputs["second"], &outputs["id"]), (&json!(2), &json!("7")));
        assert_eq!((&outputs["status"], &outputs["body"]), (&json!(201), &json!("{\"a\":[1, 2]}")));
    }

    #[tokio::test]
    async fn every_attempt_of_a_change_has_the_same_key() {
        let mut place = Place::new();
        let (url, mut seen) = serve("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let mut action = request("post", &url);
        action.json = Some(json!({ "a": 1 }));
        let mut keys = Vec::new();
        for attempt in [1, 2] {
            place.cx.attempt = attempt;
            action.run(&place.cx, &Value::Null).await.expect("answers");
            let text = seen.recv().await.expect("a request");
            assert!(text.starts_with("POST / ") && text.ends_with("{\"a\":1}"), "{text}");
            let key = text.lines().find(|line| line.starts_with(IDEMPOTENCY_KEY)).map(str::to_owned);
            keys.push(key.expect("a key"));
        }
        assert_eq!(keys[0], keys[1]);
        assert_eq!(action.probe(&place.cx, &Value::Null).await, Finding::Unknown);
    }

    #[tokio::test]
    async fn what_is_known_after_a_failure_depends_on_what_was_sent() {
        let mut place = Place::new();
        place.cx.masker = Masker::new(["hunter2"]);
        let (url, _seen) = serve("HTTP/1.1 403 Forbidden\r\ncontent-length: 10\r\n\r\nno hunter2").await;
        let failure = request("POST", &url).run(&place.cx, &Value::Null).await.expect_err("refused");
        assert_eq!(failure.error, "answered 403 Forbidden: no ***");
        assert_eq!((failure.effect, failure.retryable), (Effect::Unknown, false));
        let failure = request("GET", &url).run(&place.cx, &Value::Null).await.expect_err("refused");
        assert_eq!(failure.effect, Effect::None);
        let mut expecting = request("POST", &url);
        expecting.expect.status = vec![403];
        expecting.run(&place.cx, &Value::Null).await.expect("as expected");

        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
        let failure = request("POST", &format!("http://{free}/hunter2")).run(&place.cx, &Value::Null).await;
        let failure = failure.expect_err("nobody listens");
        assert_eq!((failure.effect, failure.retryable), (Effect::None, true));
        assert!(!failure.error.contains("hunter2"), "{failure}");
        let (url, _seen) = serve("").await;
        let failure = request("POST", &url).run(&place.cx, &Value::Null).await.expect_err("hung up");
        assert_eq!(failure.effect, Effect::Unknown);
        let failure = request("GET", "no url").run(&place.cx, &Value::Null).await.expect_err("no url");
        assert_eq!((failure.effect, failure.retryable), (Effect::None, false));
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut() {
        let place = Place::new();
        let text = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2 * BODY_MAX));
        let (url, _seen) = serve(text).await;
        let mut action = request("GET", &url);
        action.run(&place.cx, &Value::Null).await.expect("the answer as such is fine");
        action.outputs.insert("body".into(), ResponseRule { body: true, ..rule() });
        let failure = action.run(&place.cx, &Value::Null).await.expect_err("too long for an output");
        assert!(failure.error.contains("longer than 1048576 bytes"), "{failure}");
    }
}
