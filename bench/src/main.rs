//! `make bench`: `walpost-bench [start|drain|marking|publishing|rabbitmq|activemq|artemis|latency]`, without an argument all of them.

use walpost_bench::{backlog, drain, java, latency, marking, publishing, rabbitmq, start, table};
use walpost_testkit::RabbitMq;

/// Rows of a backlog.
const ROWS: u64 = 200_000;
/// Rows for a broker that stores them.
const STORED: u64 = 100_000;
/// Rows that are marked.
const MARKED: u64 = 100_000;
/// Rows that are published by their tables.
const PUBLISHED: u64 = 100_000;

fn main() {
    let only = std::env::args().nth(1);
    let parts =
        ["start", "drain", "marking", "publishing", "rabbitmq", "activemq", "artemis", "latency"];
    if let Some(only) = &only
        && !parts.contains(&only.as_str())
    {
        eprintln!("no such benchmark: {only}; there are {}", parts.join(", "));
        std::process::exit(2);
    }
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let server = backlog::server();
    let mut lines = Vec::new();
    if wanted("start") {
        lines.extend(start::run(&server));
    }
    if wanted("drain") {
        lines.extend(drain::run(&server, ROWS));
    }
    if wanted("marking") {
        lines.extend(marking::run(&server, MARKED));
    }
    if wanted("publishing") {
        lines.extend(publishing::run(&server, PUBLISHED));
    }
    if wanted("rabbitmq") || wanted("latency") {
        let broker = RabbitMq::start();
        if wanted("latency") {
            lines.extend(latency::run(&server, &broker));
        }
        if wanted("rabbitmq") {
            lines.extend(rabbitmq::run(&server, &broker, STORED));
        }
    }
    if wanted("activemq") {
        lines.extend(java::activemq(&server, STORED));
    }
    if wanted("artemis") {
        lines.extend(java::artemis(&server, STORED));
    }
    let load = load.split_whitespace().next().unwrap_or("unknown");
    println!(
        "\n{cores} cores, load {load} at the start; {} rows of {} bytes a backlog, {} for a broker that stores them\n\n{}",
        table::grouped(ROWS as f64),
        walpost_bench::frames::BODY,
        table::grouped(STORED as f64),
        table::render(&lines)
    );
}
