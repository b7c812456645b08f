//! A steady load of transactions of all shapes, and the naive model that judges what arrives.

mod lives;
mod model;
mod reader;
mod shape;
mod stage;
mod tap;
mod target;
mod writers;

pub use lives::{Life, repeats_of_lives};
pub use stage::Stage;

/// The seed of a test: `SEED=123` replays the plan of that run (shapes of the transactions, moments
/// of the kills; not the schedule of the machine's processes).
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("SEED").ok().map(|text| text.parse().expect("SEED is a number"));
    let seed = given.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("{test}: replay its plan with SEED={seed}");
    seed
}
