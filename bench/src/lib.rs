//! walpost's benchmarks: each figure beside a ceiling that the same run finds on the same machine.
//!
//! Nothing here is a test: `make bench` prints a table with goals and leaves the judgement to its reader. What is measured, and
//! how, is written in `docs/benchmarks.md`.
#![forbid(unsafe_code)]

pub mod backlog;
pub mod brokers;
pub mod drain;
pub mod frames;
pub mod java;
pub mod latency;
pub mod marking;
pub mod pace;
pub mod programs;
pub mod proxy;
pub mod publishing;
pub mod rabbitmq;
pub mod raw;
pub mod reader;
pub mod start;
pub mod stats;
pub mod table;
