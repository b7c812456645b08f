//! What a raw sender is asked to do, and the bytes that it sends: encoded beforehand, so that nothing but the broker takes time.

use std::str::FromStr;

use crate::frames::{self, Kind, Proof};

/// Messages of a transaction, as walpost groups them.
const GROUP: usize = 200;

/// Messages for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Whose headers.
    pub kind: Kind,
    /// Whether the messages go in transactions.
    pub transactions: bool,
    /// Where the broker listens, on 127.0.0.1.
    pub port: u16,
    /// Its virtual host.
    pub vhost: String,
    /// Where to.
    pub destination: String,
    /// Messages.
    pub count: usize,
    /// Messages without a receipt, of all connections.
    pub window: usize,
    /// Connections.
    pub connections: usize,
}

/// What [`Job::parse`] wants.
const USAGE: &str = "rabbitmq|activemq|artemis receipts|transactions PORT VHOST DESTINATION COUNT WINDOW CONNECTIONS";

impl Job {
    /// As arguments of a command.
    #[must_use]
    pub fn arguments(&self) -> [String; 8] {
        [
            match self.kind {
                Kind::RabbitMq => "rabbitmq",
                Kind::ActiveMq => "activemq",
                Kind::Artemis => "artemis",
            }
            .to_owned(),
            if self.transactions { "transactions" } else { "receipts" }.to_owned(),
            self.port.to_string(),
            self.vhost.clone(),
            self.destination.clone(),
            self.count.to_string(),
            self.window.to_string(),
            self.connections.to_string(),
        ]
    }

    /// From arguments of a command.
    ///
    /// # Errors
    /// What the arguments should be.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let [kind, proof, port, vhost, destination, count, window, connections] = arguments else {
            return Err(USAGE.to_owned());
        };
        let job = Job {
            kind: match kind.as_str() {
                "rabbitmq" => Kind::RabbitMq,
                "activemq" => Kind::ActiveMq,
                "artemis" => Kind::Artemis,
                _ => return Err(USAGE.to_owned()),
            },
            transactions: match proof.as_str() {
                "receipts" => false,
                "transactions" => true,
                _ => return Err(USAGE.to_owned()),
            },
            port: number(port)?,
            vhost: vhost.clone(),
            destination: destination.clone(),
            count: number(count)?,
            window: number(window)?,
            connections: number(connections)?,
        };
        // Less would never send a COMMIT, or nothing at all.
        let least = if job.transactions { GROUP } else { 1 };
        if job.connections == 0 || job.window / job.connections < least {
            return Err(format!("a connection needs a window of at least {least}"));
        }
        Ok(job)
    }

    /// What one of the connections sends: its share, with message ids that no other has.
    #[must_use]
    pub fn share(&self, connection: usize) -> Share {
        let each = self.count.div_ceil(self.connections);
        let first = (connection * each).min(self.count);
        let count = each.min(self.count - first);
        let group = if self.transactions { GROUP } else { 1 };
        let body = frames::body();
        let mut share = Share { bytes: Vec::new(), ends: vec![0], group };
        for at in 0..count {
            let name = format!("walpost-group-{}", at / group + 1);
            let proof = if self.transactions {
                Proof::Transaction(&name)
            } else {
                Proof::Receipt(frames::FIRST_RECEIPT + at)
            };
            if self.transactions && at % group == 0 {
                share.bytes.extend(frames::begin(&name));
            }
            let frame = frames::send(self.kind, &self.destination, first + at, proof, &body);
            share.bytes.extend(frame);
            if self.transactions && (at % group == group - 1 || at == count - 1) {
                share.bytes.extend(frames::commit(&name));
            }
            share.ends.push(share.bytes.len());
        }
        share
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

/// Frames one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    bytes: Vec<u8>,
    /// Where each message ends, with the COMMIT behind it; before the first one 0.
    ends: Vec<usize>,
    /// Messages that a receipt proves.
    group: usize,
}

impl Share {
    /// How many messages there are.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.ends.len() - 1
    }

    /// The messages from the one to before the other.
    #[must_use]
    pub fn bytes(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[self.ends[from]..self.ends[to]]
    }

    /// How many messages so many receipts prove.
    #[must_use]
    pub fn proved(&self, receipts: usize) -> usize {
        (receipts * self.group).min(self.messages())
    }
}

#[cfg(test)]
mod tests {
    use walpost_testkit::stomp::{Frame, Parser};

    use super::*;

    fn job(transactions: bool, count: usize, connections: usize) -> Job {
        Job {
            kind: Kind::Artemis,
            transactions,
            port: 61613,
            vhost: "/".to_owned(),
            destination: "/queue/a".to_owned(),
            count,
            window: 1024,
            connections,
        }
    }

    fn frames(share: &Share, from: usize, to: usize) -> Vec<Frame> {
        let mut parser = Parser::default();
        parser.push(share.bytes(from, to));
        let mut frames = Vec::new();
        while let Some(raw) = parser.next().expect("whole frames") {
            frames.push(raw.decode().expect("whole frames"));
        }
        frames
    }

    #[test]
    fn a_job_survives_the_command_line() {
        for job in [job(true, 5, 2), Job { kind: Kind::RabbitMq, ..job(false, 7, 4) }] {
            assert_eq!(Job::parse(&job.arguments()), Ok(job));
        }
        assert!(Job::parse(&job(true, 5, 6).arguments()).is_err(), "no group fits");
        assert!(Job::parse(&job(false, 5, 0).arguments()).is_err(), "no connection");
        assert_eq!(Job::parse(&[]), Err(USAGE.to_owned()));
    }

    #[test]
    fn no_message_id_comes_twice() {
        let job = job(false, 10, 4);
        let mut ids = Vec::new();
        for connection in 0..4 {
            let share = job.share(connection);
            for frame in frames(&share, 0, share.messages()) {
                ids.push(frame.header("_AMQ_DUPL_ID").map(str::to_owned));
            }
        }
        assert_eq!(ids.len(), 10);
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 10, "{ids:?}");
    }

    #[test]
    fn a_group_is_committed_behind_its_last_message() {
        let share = job(true, 450, 1).share(0);
        let commands = |from, to| -> Vec<String> {
            frames(&share, from, to).into_iter().map(|frame| frame.command).collect()
        };
        assert_eq!(commands(0, 1), ["BEGIN", "SEND"]);
        assert_eq!(commands(198, 201), ["SEND", "SEND", "COMMIT", "BEGIN", "SEND"]);
        assert_eq!(commands(449, 450), ["SEND", "COMMIT"]);
        assert_eq!([0, 1, 2, 3].map(|receipts| share.proved(receipts)), [0, 200, 400, 450]);
    }
}
