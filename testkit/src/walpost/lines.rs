//! Lines of a stream as they come.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Lines of a stream as they come.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    pub(super) fn collect_from(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                lines.lock().push(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned());
                lines.0.1.notify_all();
                line.clear();
            }
        })
    }

    pub(super) fn wait_for(&self, pattern: &str, timeout: Duration) -> Option<String> {
        let deadline = Instant::now() + timeout;
        let mut lines = self.lock();
        let mut seen = 0;
        loop {
            if let Some(line) = lines[seen..].iter().find(|line| line.contains(pattern)) {
                return Some(line.clone());
            }
            seen = lines.len();
            let left = deadline.checked_duration_since(Instant::now())?;
            lines = self
                .0
                .1
                .wait_timeout(lines, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(lines, _)| lines);
        }
    }

    pub(super) fn text(&self) -> String {
        self.lock().join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
