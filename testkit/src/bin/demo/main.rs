//! Rows that an application commits arrive in RabbitMQ; then the relay is killed, comes back, and the books balance.
//!
//! Starts a private PostgreSQL, a private RabbitMQ and `walpost run`; leaves nothing running. Exits with 1 if anything
//! was lost, came that should not have, or came out of order.

mod ledger;
mod load;
mod screen;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use walpost_testkit::postgres::Database;
use walpost_testkit::rabbitmq::Vhost;
use walpost_testkit::{Ack, Consumer, Postgres, RabbitMq, Walpost, walpost};

use ledger::Ledger;
use screen::Screen;

const QUEUE: &str = "everything";
const READY: Duration = Duration::from_secs(30);
/// Seconds after the first row: what happens to the relay. The last one is the end of the load.
const SCRIPT: &[(u64, Step)] = &[
    (7, Step::Kill),
    (10, Step::Start),
    (15, Step::KillInside),
    (18, Step::Start),
    (23, Step::EndLoad),
];

#[derive(Clone, Copy)]
enum Step {
    Kill,
    /// In the middle of a large transaction.
    KillInside,
    Start,
    EndLoad,
}

fn main() -> ExitCode {
    let Some(binary) = binary() else {
        eprintln!("no walpost beside this program: run `make demo`, or set WALPOST_BIN");
        return ExitCode::from(2);
    };
    screen::leave_tidily_when_interrupted();
    let screen = Screen::new();
    screen.title();

    // RabbitMQ takes its eight seconds; PostgreSQL is up long before.
    let started = Instant::now();
    let rabbitmq = std::thread::spawn(RabbitMq::start);
    let postgres = screen.step("PostgreSQL, private, in a temporary folder", Postgres::start);
    let broker = screen.step("RabbitMQ, likewise", || match rabbitmq.join() {
        Ok(broker) => broker,
        Err(why) => std::panic::resume_unwind(why),
    });
    let database = postgres.fresh_database();
    let vhost = broker.fresh_vhost();
    vhost.declare_queue(QUEUE);
    vhost.bind("amq.topic", QUEUE, "#");
    let settings = settings(binary, &database, &vhost);
    let mut relay =
        screen.step("walpost run: schema, publication and slot made, streaming", || {
            let mut relay = settings.start();
            relay.await_ready(READY);
            relay
        });
    screen.note(&format!("ready after {:.0} s", started.elapsed().as_secs_f64()));

    let ledger = Arc::new(Ledger::default());
    let consumer = consume(&vhost, &ledger);
    let load = load::start(database.url(), Arc::clone(&ledger));
    let verdict = play(&screen, &settings, &mut relay, &ledger, load);
    let status = relay.terminate(READY);
    drop(consumer);
    screen.books(&verdict);
    if !status.success() {
        screen.note(&format!("walpost ended with {status}; it said:\n{}", relay.log()));
    }
    if verdict.balances() && status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The release build: `WALPOST_BIN`, else the neighbour of this program.
fn binary() -> Option<PathBuf> {
    let neighbour = || Some(std::env::current_exe().ok()?.with_file_name("walpost"));
    std::env::var_os("WALPOST_BIN")
        .map(PathBuf::from)
        .or_else(neighbour)
        .filter(|path| path.exists())
}

fn settings(binary: PathBuf, database: &Database<'_>, vhost: &Vhost<'_>) -> walpost::Builder {
    Walpost::builder(binary)
        .set("postgres.url", database.url())
        .set("broker.hosts", vhost.broker().stomp_address())
        .set("broker.vhost", vhost.name())
}

fn consume(vhost: &Vhost<'_>, ledger: &Arc<Ledger>) -> Consumer {
    let ledger = Arc::clone(ledger);
    Consumer::builder(vhost.broker().stomp_port())
        .vhost(vhost.name())
        .subscribe(&format!("/amq/queue/{QUEUE}"))
        .ack(Ack::Client)
        .each(move |message| ledger.arrived(&message))
        .start()
}

/// Goes through the script, then waits until everything that was committed has arrived.
fn play(
    screen: &Screen,
    settings: &walpost::Builder,
    relay: &mut Walpost,
    ledger: &Ledger,
    load: load::Load,
) -> ledger::Verdict {
    let started = Instant::now();
    let mut script = SCRIPT.iter().peekable();
    let mut load = Some(load);
    let mut killed: Option<Instant> = None;
    let mut quiet_since = None;
    loop {
        let at = started.elapsed();
        if let Some((_, step)) = script.next_if(|(second, _)| at.as_secs() >= *second) {
            match step {
                Step::Kill => kill(screen, at, relay, "of walpost"),
                Step::KillInside => {
                    await_middle_of_large(load.as_ref(), ledger);
                    let inside = format!("inside {} rows", load::LARGE);
                    kill(screen, started.elapsed(), relay, &inside);
                }
                Step::Start => {
                    let before = Instant::now();
                    *relay = settings.start();
                    relay.await_ready(READY);
                    let took = before.elapsed().as_millis();
                    screen.event(at, &format!("walpost started again: streaming after {took} ms"));
                }
                Step::EndLoad => {
                    drop(load.take());
                    screen.event(at, "the application stops writing");
                }
            }
            killed = match step {
                Step::Kill | Step::KillInside => Some(Instant::now()),
                Step::Start => None,
                Step::EndLoad => killed,
            };
        }
        screen.draw(at, killed, relay, ledger);
        if load.is_none() {
            // Repeats may come after the last new message: wait for them too.
            let verdict = ledger.verdict();
            let quiet = *quiet_since.get_or_insert((Instant::now(), verdict.messages));
            if quiet.1 != verdict.messages {
                quiet_since = None;
            } else if verdict.lost == 0 && quiet.0.elapsed() > Duration::from_secs(1)
                || quiet.0.elapsed() > READY
            {
                return verdict;
            }
        }
        std::thread::sleep(screen.pause());
    }
}

fn kill(screen: &Screen, at: Duration, relay: &mut Walpost, how: &str) {
    relay.kill();
    screen
        .event(at, &format!("kill -9 {how}: what it had not confirmed to PostgreSQL comes again"));
}

/// Has the application write a large transaction, and waits until a part of it has arrived.
fn await_middle_of_large(load: Option<&load::Load>, ledger: &Ledger) {
    let before = ledger.view().arrived;
    if let Some(load) = load {
        load.write_a_large_transaction();
    }
    let middle = before + u64::from(load::LARGE) / 4;
    let deadline = Instant::now() + Duration::from_secs(5);
    while ledger.view().arrived < middle && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}
