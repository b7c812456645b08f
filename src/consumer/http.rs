//! A POST to the application beside walpost, for each message.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Uri;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use super::message::{Encoding, Message};
use super::worker::Attempt;
use crate::net::{self, Address};

/// A longer answer ends the connection, so that it need not be read.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Where messages are posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    address: Address,
    authority: String,
    path: String,
}

/// A URL that messages can't be posted to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no URL that messages can be posted to; write http://HOST:PORT/PATH, without a user"
)]
pub struct UrlError(String);

impl Target {
    /// `http://host:port/path`; no TLS, the application is beside walpost.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(url: &str) -> Result<Target, UrlError> {
        let wrong = || UrlError(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if uri.scheme_str() != Some("http") || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Target {
            address: Address::Tcp(host, authority.port_u16().unwrap_or(80)),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }
}

/// A connection that is kept for the next message.
#[derive(Debug, Default)]
pub(super) struct Client(Option<Open>);

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Posts the message, and waits for the answer no longer than `limit`.
    pub(super) async fn post(
        &mut self,
        target: &Target,
        message: &Message,
        queue: &str,
        limit: Duration,
    ) -> Attempt {
        match tokio::time::timeout(limit, self.attempt(target, message, queue, limit)).await {
            Ok(attempt) => attempt,
            Err(_) => {
                self.0 = None;
                Attempt::Again(format!("{} has not answered within {limit:?}", target.authority))
            }
        }
    }

    async fn attempt(
        &mut self,
        target: &Target,
        message: &Message,
        queue: &str,
        limit: Duration,
    ) -> Attempt {
        loop {
            let was_open = self.0.as_ref().is_some_and(|open| !open.sender.is_closed());
            if !was_open {
                match connect(target, limit).await {
                    Ok(open) => self.0 = Some(open),
                    Err(why) => return Attempt::Again(why),
                }
            }
            let Some(mut open) = self.0.take() else { continue };
            match exchange(&mut open, target, message, queue).await {
                Ok((attempt, keep)) => {
                    self.0 = keep.then_some(open);
                    return attempt;
                }
                // The application may have closed a connection that it found idle.
                Err(_) if was_open => {}
                Err(error) => {
                    return Attempt::Again(format!("no answer from {}: {error}", target.authority));
                }
            }
        }
    }
}

async fn connect(target: &Target, limit: Duration) -> Result<Open, String> {
    let stream = net::connect(&target.address, None, limit).await;
    let stream = stream.map_err(|error| format!("can't connect to {error}"))?;
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) =
        shaken.map_err(|error| format!("can't speak HTTP with {}: {error}", target.authority))?;
    // How it ends is seen by whoever sends.
    let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
    Ok(Open { sender, task })
}

/// One request and its answer; and whether the connection is good for another one.
async fn exchange(
    open: &mut Open,
    target: &Target,
    message: &Message,
    queue: &str,
) -> Result<(Attempt, bool), hyper::Error> {
    let mut request = hyper::Request::new(Full::new(message.body.clone()));
    *request.method_mut() = hyper::Method::POST;
    // What was taken out of a URI is one.
    *request.uri_mut() = target.path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    let value = |text: &str| HeaderValue::from_str(text).ok();
    headers.extend(value(&target.authority).map(|host| (HOST, host)));
    let default = match message.encoding() {
        Encoding::Json => "application/json",
        Encoding::Empty | Encoding::Text | Encoding::Base64 => "application/octet-stream",
    };
    let content_type = message.header("content-type").and_then(value).or_else(|| value(default));
    headers.extend(content_type.map(|kind| (CONTENT_TYPE, kind)));
    for (name, text) in head(message, queue) {
        let name = HeaderName::from_bytes(name.as_bytes()).ok();
        headers.extend(name.zip(value(&text)));
    }
    open.sender.ready().await?;
    let answer = open.sender.send_request(request).await?;
    let status = answer.status();
    let read = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await.is_ok();
    let what = || format!("{} answered {status}", target.authority);
    let attempt = match status.as_u16() {
        200..=299 => Attempt::Done,
        400..=499 => Attempt::Refused(what()),
        _ => Attempt::Again(what()),
    };
    Ok((attempt, read))
}

/// What goes along as headers, under names that no application takes for its caller's own.
fn head(message: &Message, queue: &str) -> Vec<(String, String)> {
    let own = [
        ("walpost-queue", queue),
        ("walpost-message-id", &message.id),
        ("walpost-destination", &message.destination),
    ];
    let own = own.map(|(name, text)| (name.to_owned(), escaped(text, is_value)));
    let theirs = message.headers.iter().map(|(name, text)| {
        let name =
            escaped(&name.to_lowercase(), |c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
        (format!("walpost-header-{name}"), escaped(text, is_value))
    });
    own.into_iter().chain(theirs).collect()
}

/// What HTTP can carry, and no `%`.
fn is_value(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'%'
}

/// Percent-encodes every byte that is not plain.
fn escaped(text: &str, plain: impl Fn(u8) -> bool) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::tests::message;
    use super::*;

    #[test]
    fn a_url_of_the_application() {
        let target = Target::parse("http://127.0.0.1:8000/in?x=1").unwrap();
        assert_eq!(target.address, Address::Tcp("127.0.0.1".to_owned(), 8000));
        assert_eq!(
            (target.authority.as_str(), target.path.as_str()),
            ("127.0.0.1:8000", "/in?x=1")
        );
        let target = Target::parse("http://[::1]").unwrap();
        assert_eq!(
            (target.address, target.path),
            (Address::Tcp("::1".to_owned(), 80), "/".to_owned())
        );
        for url in ["https://a/", "ftp://a/", "a", "", "http://", "/path", "http://me:secret@a/"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn headers_cannot_be_taken_for_the_callers_own() {
        let message = message(&[("Host", "evil\r\nX: y"), ("grün", "100% ü")], b"");
        let head = head(&message, "q");
        assert!(head.contains(&("walpost-header-host".to_owned(), "evil%0D%0AX: y".to_owned())));
        let green = ("walpost-header-gr%C3%BCn".to_owned(), "100%25 %C3%BC".to_owned());
        assert!(head.contains(&green), "{head:?}");
    }

    proptest! {
        #[test]
        fn any_header_is_one_of_http(name in "[^\0]{1,9}", text in "[^\0]{0,9}") {
            for (name, text) in head(&message(&[(&name, &text)], b""), "q") {
                prop_assert!(HeaderName::from_bytes(name.as_bytes()).is_ok(), "{name}");
                prop_assert!(HeaderValue::from_str(&text).is_ok(), "{text}");
            }
        }
    }
}
