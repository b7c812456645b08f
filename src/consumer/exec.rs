//! A command for each message: the body on its standard input, the headers in its environment.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::message::Message;
use super::worker::Attempt;

/// Before the name of a header's variable.
const HEADER: &str = "WALPOST_HEADER_";
/// Variables with walpost's own settings, passwords among them: not the command's business.
const SETTINGS: &str = "WALPOST__";

/// The command's process group, which is killed unless the command has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have just ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs the command for the message, for no longer than `limit`.
pub(super) async fn run(
    command: &[String],
    message: &Message,
    queue: &str,
    limit: Duration,
) -> Attempt {
    match tokio::time::timeout(limit, finish(command, message, queue)).await {
        Ok(Ok(status)) if status.success() => Attempt::Done,
        Ok(Ok(status)) => Attempt::Refused(format!("the command ended with {status}")),
        Ok(Err(error)) => failed(&error),
        Err(_) => Attempt::Refused(format!("the command was killed after {limit:?}")),
    }
}

/// Not the message's fault, but for what is too long for an environment.
fn failed(error: &io::Error) -> Attempt {
    let what = format!("the command can't be run: {error}");
    match error.kind() {
        io::ErrorKind::ArgumentListTooLong => Attempt::Refused(what),
        _ => Attempt::Unavailable(what),
    }
}

async fn finish(command: &[String], message: &Message, queue: &str) -> io::Result<ExitStatus> {
    let [program, arguments @ ..] = command else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let shown = name.to_string_lossy();
        if shown.starts_with(SETTINGS) || shown.starts_with(HEADER) {
            command.env_remove(&name);
        }
    }
    command
        .args(arguments)
        .envs(variables(message, queue))
        .stdin(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut group = Group(pid);
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command need not read what it gets.
            let _ = stdin.write_all(&message.body).await;
        }
    };
    let wait = child.wait();
    tokio::pin!(wait);
    let status = tokio::select! {
        status = &mut wait => status,
        () = feed => wait.await,
    };
    group.0 = None;
    status
}

/// The variables of a message. Where two headers have the same one, the first counts.
fn variables(message: &Message, queue: &str) -> Vec<(String, String)> {
    let mut variables = vec![
        ("WALPOST_QUEUE".to_owned(), queue.to_owned()),
        ("WALPOST_MESSAGE_ID".to_owned(), message.id.clone()),
        ("WALPOST_DESTINATION".to_owned(), message.destination.clone()),
    ];
    for (name, value) in &message.headers {
        let safe = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let variable: String = HEADER.chars().chain(name.chars().map(safe)).collect();
        if !variables.iter().any(|(known, _)| *known == variable) {
            variables.push((variable, value.clone()));
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use walpost_testkit::eventually;

    use super::super::message::tests::message;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    async fn ran(script: &str, headers: &[(&str, &str)], body: &[u8]) -> Attempt {
        run(&shell(script), &message(headers, body), "q", LONG).await
    }

    #[tokio::test]
    async fn body_headers_and_status() {
        let headers = [("msg-id", "7"), ("a b\n:ü", "1\n2"), ("a_b___", "other"), ("msg.id", "no")];
        let script = r#"test "$(cat)" = 'the body' &&
            test "$WALPOST_HEADER_MSG_ID" = 7 && test "$WALPOST_HEADER_A_B___" = "1
2" && test "$WALPOST_QUEUE/$WALPOST_MESSAGE_ID" = q/7 && test -n "$PATH""#;
        assert_eq!(ran(script, &headers, b"the body").await, Attempt::Done);
        let Attempt::Refused(why) = ran("exit 3", &[], b"").await else { panic!("not refused") };
        assert!(why.contains('3'), "{why}");
        // Larger than any pipe, and nobody reads.
        assert_eq!(ran("exit 0", &[], &vec![b'x'; 4 << 20]).await, Attempt::Done);
    }

    #[tokio::test]
    async fn what_cannot_be_run_is_not_the_messages_fault() {
        let missing = ["/no/such/command".to_owned()];
        let attempt = run(&missing, &message(&[], b""), "q", LONG).await;
        assert!(matches!(attempt, Attempt::Unavailable(_)), "{attempt:?}");
        let long = "x".repeat(4 << 20);
        let attempt = ran("exit 0", &[("a", &long)], b"").await;
        assert!(matches!(attempt, Attempt::Refused(_)), "{attempt:?}");
    }

    /// At the limit nothing of it is left, its own children neither.
    #[tokio::test]
    async fn at_the_limit_the_whole_group_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let script = format!("sleep 1000 & echo $! $$ > {}; wait", file.display());
        let started = Instant::now();
        let limit = Duration::from_secs(2);
        let attempt = run(&shell(&script), &message(&[], b""), "q", limit).await;
        assert_eq!(attempt, Attempt::Refused("the command was killed after 2s".to_owned()));
        assert!(started.elapsed() < LONG);
        let pids = std::fs::read_to_string(&file).unwrap();
        assert_eq!(pids.split_whitespace().count(), 2);
        let is_gone = |pid: &str| match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'),
            Err(_) => true,
        };
        eventually(LONG, "they are gone", async || pids.split_whitespace().all(is_gone)).await;
    }
}
